"""Agreement with the authors' released code on tiny random checkpoints; sizes are read from the files."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vltune.backbones.vilt import Vilt
from vltune.methods.adapter import Adapter
from vltune.methods.apt import APT
from vltune.methods.classifier_only import ClassifierOnly
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.lora import LoRA, LowRank
from vltune.methods.scaled_pa import ScaledParallelAdapter
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.sites import merged
from vltune.tasks.vqa import VQA
from vltune.weights.files import read
from vltune.weights.vilt import load_backbone, load_head

GOLDEN = Path(os.environ.get("VLTUNE_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


def golden_files(backbone: str, task: str) -> list:
    """Every golden checkpoint of a backbone and task; one skipped parameter that says why where there are none."""
    found = sorted(GOLDEN.glob(f"**/{backbone}-*-{task}.ckpt"))
    if not found:
        reason = f"no {backbone}-*-{task}.ckpt under {GOLDEN}: set VLTUNE_GOLDEN to the folder of golden files"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    return [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in found]


def read_io(path):
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
        return tensors, json.loads(file.metadata()["config"])


def rows(state, ending):
    """The first size of the first tensor whose key ends so."""
    return next(tensor.shape[0] for key, tensor in state.items() if key.endswith(ending))


class ReleasedLoRA(LoRA):
    """The released LoRA has rank 204 at any width; a user's rank may not exceed the width, so the check is left out."""

    def delta(self, site):
        return LowRank(site.in_width, site.width, self.rank, self.dropout, self.init_std)


METHODS = {
    "baseline": lambda state: ClassifierOnly(),
    "apt": lambda state: APT(prompts=rows(state, "APT.mm_tokens"), rank=rows(state, "APT.mm.0.weight")),
    "lora": lambda state: ReleasedLoRA(rank=rows(state, "q_lora.lora_B")),
    "adapter": lambda state: Adapter(bottleneck=rows(state, "adapter0.down_sampler.weight")),
    "scaled-pa": lambda state: ScaledParallelAdapter(bottleneck=rows(state, "PA.down_proj.weight")),
    "deep-prompt": lambda state: DeepPrompt(prompts=state["prompt"].shape[2]),
    "shallow-prompt": lambda state: ShallowPrompt(prompts=state["prompt"].shape[2]),
}


def vilt_of(state, config):
    return Vilt(
        width=config["hidden_size"],
        layers=config["num_layers"],
        heads=config["num_heads"],
        hidden=config["hidden_size"] * config["mlp_ratio"],
        patch_size=config["patch_size"],
        image_size=config["image_size"],
        vocabulary_size=config["vocab_size"],
        max_text_len=config["max_text_len"],
        token_types=state["token_type_embeddings.weight"].shape[0],
        max_image_len=config["max_image_len"],
        last_layer="all",
    ).eval()


def image_size(image):
    """(B, 2): the height and width of what is not zero padding."""
    filled = image.abs().sum(1) != 0
    return torch.stack([filled.any(2).sum(1), filled.any(1).sum(1)], dim=1)


@pytest.mark.parametrize("path", golden_files("vilt", "vqa"))
def test_golden_vilt_vqa(path):
    tensors, config = read_io(path.with_suffix(".io.safetensors"))
    state = read(path)
    backbone, task = vilt_of(state, config), VQA(config["hidden_size"], range(config["vqav2_label_size"])).eval()
    name = path.stem.removeprefix("vilt-").removesuffix("-vqa")
    METHODS[name](state).attach(backbone)
    load_backbone(backbone.eval(), path, cls_id=101)
    load_head(task, path)
    batch = {
        "text_ids": tensors["in.text_ids"],
        "text_mask": tensors["in.text_masks"].bool(),
        "image": tensors["in.image"],
        "image_size": image_size(tensors["in.image"]),
    }
    with torch.no_grad():
        for variant in (nullcontext, merged):
            with variant(backbone):
                features = backbone(batch)
                logits = task(backbone, batch)
            real = batch["text_mask"]
            for ours, theirs in (
                (features.pooled, tensors["out.cls_feats"]),
                (features.text[real], tensors["out.text_feats"][real]),
                (logits, tensors["out.logits"]),
            ):
                torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        backbone.last_layer = "class_token"
        torch.testing.assert_close(task(backbone, batch), tensors["out.logits"], atol=1e-4, rtol=0)
