"""Loading a pretrained backbone from any layout that is known."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vltune.weights import meter, vilt
from vltune.weights.files import read
from vltune.weights.keys import Family, load, recognise

# Our own files use the model's own names; what stands under `task.` are pretraining's heads.
OURS = Family(name="vltune", marks=("class_token", "token_type.weight"), rules=(), unused=("task.",))
FAMILIES = (vilt.AUTHORS, vilt.TRANSFORMERS, meter.AUTHORS, OURS)

# What pretrained checkpoints lack; the class token then starts as the embedding of the text's first token.
ABSENT = ("class_token",)


def load_backbone(backbone: nn.Module, path: Path, cls_id: int) -> str:
    """Loads a backbone, and the deltas attached to it where the file has them.

    cls_id: the tokenizer's first token of every text.  Returns the layout's name."""
    state = read(path)
    family = recognise(state, FAMILIES, path)
    if "class_token" in load(backbone, state, family, path, ABSENT):
        backbone.start_class_token(cls_id)
    return family.name
