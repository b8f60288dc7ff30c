"""`backbone.model=checkpoint`: a backbone's sizes, taken from its weights before its run has an identity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.assemble.checkpoint import CHECKPOINT, is_foreign, of_file, of_folder, stamped, taken
from vltune.assemble.weights import weight_files
from vltune.errors import UserError
from vltune.values import key_of

if TYPE_CHECKING:
    from vltune.settings.config import RunConfig

WEIGHTS = ("weights", "backbone.weights", "backbone")  # settings that choose the file


def adopted(config: RunConfig, overrides: Sequence[str] = ()) -> RunConfig:
    """The same configuration; with `backbone.model=checkpoint`, with the numbers of the weights' own configuration, which
    its hash then holds.  overrides: what the user typed, which stays.

    UserError where the file's activation is not known and none was typed for it."""
    backbone = config.backbone
    if "pipelines" in backbone and backbone["model"] == CHECKPOINT:
        return config.changed(backbone=adopted_folder(config, typed(overrides)))
    if "models" not in backbone:
        return config
    if backbone["model"] == CHECKPOINT:
        file = file_of(config)
        found = of_file(*stamped(file))
        if found.activation is None and "backbone.activation" not in typed(overrides):
            raise untold(file)
        return config.changed(backbone=taken(config.plain["backbone"], found, typed(overrides)))
    if config.weights is not None and config.mode != "cost":
        check_told(config, typed(overrides))
    return config


def file_of(config: RunConfig) -> Path:
    if config.weights is None:
        raise UserError(
            "backbone.model=checkpoint: takes its sizes from weights=, which is null; give a file or another model"
        )
    return weight_files(config.weights, config.backbone)["backbone"]


def adopted_folder(config: RunConfig, typed: set[str]) -> dict:
    """The backbone's configuration with that of a folder in diffusers' layout."""
    from vltune.weights.finding import PIPELINE
    from vltune.weights.pipelines import settings

    if (file := file_of(config)).name != PIPELINE:
        raise UserError(f"{file}: backbone.model=checkpoint takes its sizes from a folder that has a {PIPELINE}")
    return of_folder(config.plain["backbone"], settings(file), typed)


def typed(overrides: Sequence[str]) -> set[str]:
    return {key_of(each) for each in overrides}


def check_told(config: RunConfig, typed: set[str]) -> None:
    """UserError where weights were typed whose activation nothing tells, and it was not typed either.  A missing file is
    told when it is read."""
    from vltune.weights.architecture import activation

    if "backbone.activation" in typed or not typed & {*WEIGHTS}:
        return
    try:
        file = weight_files(config.weights, config.backbone)["backbone"]
    except UserError:
        return
    if activation(file)[0] is None and is_foreign(*stamped(file)):
        raise untold(file)


def untold(file: Path, setting: str = "backbone.activation") -> UserError:
    return UserError(
        f"{file}: nothing tells its activation: give {setting}=quick_gelu (OpenAI's) or {setting}=gelu "
        "(most of open_clip's), or put its config.json or open_clip_config.json beside it"
    )
