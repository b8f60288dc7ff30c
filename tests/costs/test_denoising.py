"""What a call of Stable Diffusion's UNet costs, and what each method adds to it: measured, and in closed form."""

from pathlib import Path

import pytest
import torch
from tiny_diffusion import TEXT, stable_diffusion

from vltune.assemble.backbones import group, resolve
from vltune.assemble.factory import build
from vltune.costs.macs import macs
from vltune.methods.adapter import Adapter
from vltune.methods.apt import APT
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.lora import LoRA
from vltune.methods.prefix import Prefix
from vltune.methods.scaled_pa import ScaledParallelAdapter
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.sites import sites

LORA_OUT = ("query", "key", "value", "projection")
# method -> its parameters on Stable Diffusion 1.5, where it acts by default
SIZES = {
    "lora": (lambda: LoRA(4), 398_592, 64),
    "lora with projection": (lambda: LoRA(4, roles=LORA_OUT), 797_184, 128),
    "apt": (lambda: APT(200, 4), 5_191_712, 32),
    "adapter": (lambda: Adapter(96), 7_230_528, 48),
    "scaled_pa": (lambda: ScaledParallelAdapter(96), 4_870_272, 32),
    "deep_prompt": (lambda: DeepPrompt(200, roles=["memory", "cross_memory"]), 4_953_600, 32),
    "shallow_prompt": (lambda: ShallowPrompt(200), 153_600, 1),
}
CONF = Path(__file__).parents[2] / "conf" / "backbone" / "stable_diffusion.yaml"


def real(model):
    with torch.device("meta"):
        return build(resolve(group(CONF) | {"model": model}, 1, CONF))


@pytest.mark.parametrize(("model", "size"), [("sd15", 859_520_964), ("sd21", 865_910_724)])
def test_sizes_of_the_published_unets(model, size):
    backbone = real(model)
    assert sum(parameter.numel() for parameter in backbone.own_parameters()) == size
    assert sum(parameter.numel() for parameter in backbone.vae.parameters()) == 83_653_863
    counts = {}
    for site in sites(backbone.unet):
        counts[site.role] = counts.get(site.role, 0) + 1
    at_layers = dict.fromkeys(("query", "key", "value", "projection", "attention_output", "parallel_output"), 32)
    at_blocks = dict.fromkeys(("memory", "cross_memory", "feed_forward_output", "feed_forward_up", "block"), 16)
    assert counts | at_layers | at_blocks | {"norm": 48, "sequence": 1} == counts


def test_sizes_of_methods_on_stable_diffusion():
    backbone = real("sd15")
    for name, (make, size, places) in SIZES.items():
        with torch.device("meta"):
            tuning = make().attach(backbone)
        assert (sum(parameter.numel() for parameter in tuning.trained), len(tuning.sites)) == (size, places), name
        tuning.detach()


class Step:
    """Counts one call of the UNet."""

    def counted(self, backbone, batch):
        return {"step": lambda: backbone.denoise(batch["latents"], batch["steps"], batch["text"])}


def attentions(backbone):
    """(tokens, tokens that are read, width, whether they are the text's) of each."""
    for part in backbone.unet.modules():
        if type(part).__name__ == "Transformer2DModel":
            tokens = part.grid_layout.grid.rows * part.grid_layout.grid.columns
            for block in part.transformer_blocks:
                yield from ((tokens, tokens, block.at_block.width, False), (tokens, TEXT, block.at_block.width, True))


def of_prompts(backbone, count):
    """Their keys and values, the products with every query, and in self-attention the norm, 5 an element."""
    return sum(
        count * width * (2 * (backbone.width if cross else width) + 2 * tokens + (0 if cross else 5))
        for tokens, _, width, cross in attentions(backbone)
    )


# method -> the multiply-accumulates that it adds to a call, by what the backbone is
CLOSED = {
    "lora": (lambda: LoRA(4), lambda backbone: 0),
    "adapter": (
        lambda: Adapter(8),
        lambda backbone: sum(n * 2 * 8 * width * (1 if cross else 2) for n, _, width, cross in attentions(backbone)),
    ),
    "scaled_pa": (
        lambda: ScaledParallelAdapter(8),
        lambda backbone: sum(n * w * (2 * 8 + 5) for n, _, w, _ in attentions(backbone)),
    ),
    "apt": (lambda: APT(6, 2), lambda backbone: sum(n * 2 * 6 * w for n, _, w, _ in attentions(backbone))),
    "prefix": (
        lambda: Prefix(5),
        lambda backbone: sum(2 * 5 * n * w for n, _, w, _ in attentions(backbone)),
    ),
    "deep_prompt": (
        lambda: DeepPrompt(5, roles=["memory", "cross_memory"]),
        lambda backbone: of_prompts(backbone, 5),
    ),
    "shallow_prompt": (
        lambda: ShallowPrompt(5),
        lambda backbone: sum(2 * 5 * (backbone.width * w + n * w) for n, _, w, cross in attentions(backbone) if cross),
    ),
}


@pytest.mark.parametrize("name", CLOSED)
def test_what_a_method_adds_to_a_call_is_its_closed_form(name):
    make, closed = CLOSED[name]
    backbone = stable_diffusion()
    tuning = make().attach(backbone)
    model = torch.nn.Module()
    model.backbone, model.tuning, model.task = backbone, tuning, Step()
    batch = {
        "latents": torch.zeros(1, *backbone.latent_shape),
        "steps": torch.zeros(1, dtype=torch.long),
        "text": torch.zeros(1, TEXT, backbone.width),
    }
    found = macs(model, batch)
    assert found["additional_macs"] == closed(backbone)
    if name == "deep_prompt":
        assert found["additional_macs_as_published"] is None
    assert found["macs"] > 10 * found["additional_macs"]
