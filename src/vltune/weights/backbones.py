"""Loading a pretrained backbone from any layout that is known."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn

from vltune.errors import UserError
from vltune.weights import foreign, maps
from vltune.weights.files import read
from vltune.weights.finding import EXTRA
from vltune.weights.keys import Family, check_values, load, recognise, recognised, within
from vltune.weights.maps import clip

# Our own files use the model's own names; what stands under `task.` are pretraining's heads.
FUSED, TOWERS = ("class_token", "token_type.weight"), ("text.position", "image.class_token", "logit_scale")
OURS, OUR_TOWERS = (Family(name="vltune", marks=marks, rules=(), unused=("task.",)) for marks in (FUSED, TOWERS))
TUNED, TUNED_TOWERS = (
    Family(name="what a run of vltune tuned", marks=marks, rules=(), prepare=within("backbone.", marks))
    for marks in (FUSED, TOWERS)
)
FAMILIES = (*maps.FAMILIES, OURS, TUNED, OUR_TOWERS, TUNED_TOWERS)

# What pretrained checkpoints lack; the class token then starts as the embedding of the text's first token.
MAY_LACK = ("class_token",)


def load_backbone(backbone: nn.Module, path: Path, cls_id: int, name: str = "this backbone") -> str:
    """Loads a backbone, and the deltas attached to it where the file has them.

    cls_id: the tokenizer's first token of every text.  name: what the backbone is called.  Returns the layout's name."""
    state = read(path)
    family = recognised(state, FAMILIES)
    if family is None or family in clip.FAMILIES:
        foreign.refuse(state, path)
    if family is None:
        refuse_tower(state, path)
        family = of_own_names(backbone, state) or recognise(state, FAMILIES, path)
    if "class_token" in load(backbone, state, family, path, MAY_LACK, name):
        if (extra := path.parent / EXTRA).is_file():
            backbone.class_token.data.copy_(token_beside(extra, backbone.class_token, name))
        else:
            backbone.start_class_token(cls_id)
    return family.name


def token_beside(file: Path, own: Tensor, name: str) -> Tensor:
    """The class token that an export wrote beside a model.  UserError where the file has none like `own`."""
    token = read(file).get("class_token")
    if token is None or token.shape != own.shape:
        found = "none" if token is None else f"one of {tuple(token.shape)}"
        raise UserError(
            f"{file}: {name} has a class token of {tuple(own.shape)}, and this holds {found}; export it again"
        )
    check_values(file, "class_token", token, own.dtype)
    return token


def of_own_names(backbone: nn.Module, state: Collection[str]) -> Family | None:
    """Which of our own files it is, of a backbone of any names: all that is no head's has the backbone's."""
    given, names = [key for key in state if not key.startswith("task.")], backbone.state_dict().keys()
    for prefix, family in (("", OURS), ("backbone.", TUNED)):
        if given and all(key.startswith(prefix) and key.removeprefix(prefix) in names for key in given):
            return family
    return None


def refuse_tower(state: dict[str, Tensor], path: Path) -> None:
    if any(key.startswith("backbone.unet.") for key in state):
        raise UserError(
            f"{path}: a UNet that a run of vltune tuned, without the parts that it left as they were; its record gives the "
            "whole model: mode=eval from=RECORD, vltune generate RECORD"
        )
    for part, families in maps.TOWERS.items():
        if family := recognised(state, families):
            fix = f"give it as backbone.tower_weights.{part}, with weights=null"
            raise UserError(f"{path}: {family.name}, the {part} tower of a backbone and no whole one: {fix}")
