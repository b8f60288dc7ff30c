"""Loading a pretrained backbone from any layout that is known."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from vltune.errors import UserError
from vltune.weights import maps
from vltune.weights.files import read
from vltune.weights.keys import Family, load, recognise, recognised, within

# Our own files use the model's own names; what stands under `task.` are pretraining's heads.
MARKS = ("class_token", "token_type.weight")
OURS = Family(name="vltune", marks=MARKS, rules=(), unused=("task.",))
TUNED = Family(name="what a run of vltune tuned", marks=MARKS, rules=(), prepare=within("backbone.", MARKS))
FAMILIES = (*maps.FAMILIES, OURS, TUNED)

# What pretrained checkpoints lack; the class token then starts as the embedding of the text's first token.
MAY_LACK = ("class_token",)


def load_backbone(backbone: nn.Module, path: Path, cls_id: int, name: str = "this backbone") -> str:
    """Loads a backbone, and the deltas attached to it where the file has them.

    cls_id: the tokenizer's first token of every text.  name: what the backbone is called.  Returns the layout's name."""
    state = read(path)
    if (family := recognised(state, FAMILIES)) is None:
        refuse_tower(state, path)
        family = recognise(state, FAMILIES, path)
    if "class_token" in load(backbone, state, family, path, MAY_LACK, name):
        backbone.start_class_token(cls_id)
    return family.name


def refuse_tower(state: dict[str, Tensor], path: Path) -> None:
    for part, families in maps.TOWERS.items():
        if family := recognised(state, families):
            fix = f"give it as backbone.tower_weights.{part}, with weights=null"
            raise UserError(f"{path}: {family.name}, the {part} tower of a backbone and no whole one: {fix}")
