"""Agreement with the authors' released code on tiny random checkpoints; sizes are read from the files."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vltune.backbones.meter import Meter
from vltune.backbones.vilt import Vilt
from vltune.methods.adapter import Adapter
from vltune.methods.apt import APT
from vltune.methods.classifier_only import ClassifierOnly
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.lora import LoRA, LowRank
from vltune.methods.scaled_pa import ScaledParallelAdapter
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.tasks.nlvr2 import NLVR2
from vltune.tasks.retrieval import Retrieval
from vltune.tasks.snli_ve import SNLIVE
from vltune.tasks.vqa import VQA
from vltune.weights.backbones import load_backbone
from vltune.weights.files import read
from vltune.weights.heads import load_head

GOLDEN = Path(os.environ.get("VLTUNE_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


def golden_files() -> list:
    """Every golden checkpoint; one skipped parameter that says why where there are none."""
    found = sorted(GOLDEN.glob("**/*.ckpt"))
    if not found:
        reason = f"no .ckpt under {GOLDEN}: set VLTUNE_GOLDEN to the folder of golden files"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    return [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in found]


def read_io(path):
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
        return tensors, json.loads(file.metadata()["config"])


def rows(state, ending, dim=0):
    """A size of the first tensor whose key ends so."""
    return next(tensor.shape[dim] for key, tensor in state.items() if key.endswith(ending))


class ReleasedLoRA(LoRA):
    """The released LoRA has rank 204 at any width; a user's rank may not exceed the width, so the check is left out."""

    def delta(self, site):
        return LowRank(site.in_width, site.width, self.rank, self.dropout)


def deep_prompt(state):
    """METER's is released with prompts only for cross-attention."""
    if "prompt" in state:
        return DeepPrompt(prompts=state["prompt"].shape[2])
    return DeepPrompt(prompts=state["prompts.0"].shape[2], roles=["cross_memory"])


METHODS = {
    "baseline": lambda state: ClassifierOnly(),
    "apt": lambda state: APT(prompts=rows(state, "APT.mm_tokens"), rank=rows(state, "APT.mm.0.weight")),
    "lora": lambda state: ReleasedLoRA(rank=rows(state, "q_lora.lora_B")),
    "adapter": lambda state: Adapter(bottleneck=rows(state, "down_sampler.weight")),
    "scaled-pa": lambda state: ScaledParallelAdapter(bottleneck=rows(state, "PA.down_proj.weight")),
    "deep-prompt": deep_prompt,
    "shallow-prompt": lambda state: ShallowPrompt(prompts=state["prompt"].shape[2]),
}


def vilt(state, config):
    return Vilt(
        width=config["hidden_size"],
        layers=config["num_layers"],
        heads=config["num_heads"],
        hidden=config["hidden_size"] * config["mlp_ratio"],
        patch_size=config["patch_size"],
        image_size=config["image_size"],
        vocabulary_size=config["vocab_size"],
        max_text_len=config["max_text_len"],
        token_types=len(state["token_type_embeddings.weight"]),
        max_image_len=config["max_image_len"],
        last_layer="all",
    )


def meter(state, config):
    golden = config["golden"]
    return Meter(
        text_tower={
            "width": golden["text_width"],
            "layers": golden["text_num_layers"],
            "heads": golden["text_num_heads"],
            "hidden": rows(state, "text_transformer.encoder.layer.0.intermediate.dense.weight"),
            "vocabulary_size": config["vocab_size"],
            "positions": rows(state, "text_transformer.embeddings.position_embeddings.weight"),
            "eps": 1e-12,  # transformers' default; roberta-base itself has 1e-5
        },
        image_tower="clip",
        image_towers={
            "clip": {
                "kind": "clip",
                "width": golden["vision_width"],
                "layers": golden["vision_num_blocks"],
                "heads": golden["vision_num_heads"],
                "hidden": rows(state, "resblocks.0.mlp.c_fc.weight"),
                "patch_size": golden["vision_patch_size"],
                "image_size": golden["vision_image_size"],
            }
        },
        width=config["hidden_size"],
        layers=config["num_top_layer"],
        heads=config["num_heads"],
        hidden=config["hidden_size"] * config["mlp_ratio"],
        token_types=len(state["token_type_embeddings.weight"]),
        last_layer="all",
    )


BACKBONES = {"vilt": vilt, "meter": meter}
TASKS = {
    "vqa": lambda in_width, width, config: VQA(in_width, width, range(config["vqav2_label_size"])),
    "nlvr2": lambda in_width, width, config: NLVR2(in_width, width),
    "irtr": lambda in_width, width, config: Retrieval(in_width),
    "snli": lambda in_width, width, config: SNLIVE(in_width, width),
}


def image_size(image):
    """(B, 2): the height and width of what is not zero padding."""
    filled = image.abs().sum(1) != 0
    return torch.stack([filled.any(2).sum(1), filled.any(1).sum(1)], dim=1)


@pytest.mark.parametrize("path", golden_files())
def test_agrees_with_the_authors(path):
    tensors, config = read_io(path.with_suffix(".io.safetensors"))
    state = read(path)
    backbone_name, rest = path.stem.split("-", 1)
    method_name, task_name = rest.rsplit("-", 1)
    backbone = BACKBONES[backbone_name](state, config)
    task = TASKS[task_name](backbone.pooled_width, backbone.width, config).eval()
    tuning = METHODS[method_name](state).attach(backbone)
    load_backbone(backbone.eval(), path, cls_id=101)
    load_head(task, path)
    batch = {"text_ids": tensors["in.text_ids"], "text_mask": tensors["in.text_masks"].bool()}
    for name in task.images:
        batch |= {name: tensors[f"in.{name}"], f"{name}_size": image_size(tensors[f"in.{name}"])}

    def agrees(ours, theirs):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)

    with torch.no_grad():
        for variant in (nullcontext, tuning.folded):
            with variant():
                agrees(task(backbone, batch), tensors["out.logits"])
                if "out.cls_feats" in tensors:
                    features, real = backbone(batch), batch["text_mask"]
                    agrees(features.pooled, tensors["out.cls_feats"])
                    agrees(features.text[real], tensors["out.text_feats"][real])
                if "out.image_feats" in tensors:
                    agrees(features.image, tensors["out.image_feats"])
        backbone.last_layer = "class_token"
        agrees(task(backbone, batch), tensors["out.logits"])
