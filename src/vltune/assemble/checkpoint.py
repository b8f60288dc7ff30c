"""`backbone.model=checkpoint`: a backbone's sizes, taken from its weights before its run has an identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.assemble.weights import weight_files
from vltune.errors import UserError

if TYPE_CHECKING:
    from vltune.settings.config import RunConfig
    from vltune.weights.architecture import Architecture

CHECKPOINT = "checkpoint"
WEIGHTS = ("weights", "backbone.weights", "backbone")  # settings that choose the file


def adopted(config: RunConfig, overrides: Sequence[str] = ()) -> RunConfig:
    """The same configuration; with `backbone.model=checkpoint`, with the numbers of the weights' own configuration, which
    its hash then holds.  overrides: what the user typed, which stays.

    UserError where the file's activation is not known and none was typed for it."""
    backbone = config.backbone
    if "models" not in backbone:
        return config
    if backbone["model"] == CHECKPOINT:
        if config.weights is None:
            raise UserError(
                "backbone.model=checkpoint: takes its sizes from weights=, which is null; give a file or another model"
            )
        file = weight_files(config.weights, backbone)["backbone"]
        found = of_file(*stamped(file))
        if found.activation is None and "backbone.activation" not in typed(overrides):
            raise untold(file)
        return config.changed(backbone=taken(config.plain["backbone"], found, typed(overrides)))
    if config.weights is not None and config.mode != "cost":
        check_told(config, typed(overrides))
    return config


def typed(overrides: Sequence[str]) -> set[str]:
    return {each.lstrip("+~").partition("=")[0] for each in overrides}


def check_told(config: RunConfig, typed: set[str]) -> None:
    """UserError where weights were typed whose activation nothing tells, and it was not typed either.  Missing files are told
    when they are read."""
    from vltune.weights.architecture import activation

    if "backbone.activation" in typed or not typed & {*WEIGHTS}:
        return
    try:
        file = weight_files(config.weights, config.backbone)["backbone"]
    except UserError:
        return
    if is_foreign(*stamped(file)) and activation(file)[0] is None:
        raise untold(file)


def untold(file: Path) -> UserError:
    return UserError(
        f"{file}: nothing tells its activation: give backbone.activation=quick_gelu (OpenAI's) or backbone.activation=gelu "
        "(most of open_clip's), or put its config.json or open_clip_config.json beside it"
    )


def stamped(file: Path) -> tuple[Path, int, int]:
    """A file, and what changes where its content does."""
    found = file.stat()
    return file, found.st_size, found.st_mtime_ns


@cache
def of_file(file: Path, *_: int) -> Architecture:
    from vltune.weights.architecture import architecture

    return architecture(file)


@cache
def is_foreign(file: Path, *_: int) -> bool:
    """Whether a checkpoint is another program's; ours are what their configuration says."""
    from vltune.weights.files import read
    from vltune.weights.keys import recognised
    from vltune.weights.maps.clip import FAMILIES

    return recognised(read(file), FAMILIES) is not None


def taken(backbone: Mapping[str, Any], found: Architecture, typed: set[str]) -> dict[str, Any]:
    """A backbone's configuration with what a checkpoint says in the place of all that was not typed."""
    text, image = found.sizes["text"], found.sizes["image"]
    own = {
        "activation": found.activation,
        "image_size": image["image_size"],
        "max_text_len": text["positions"],
    }
    chosen = {name: value for name, value in own.items() if f"backbone.{name}" not in typed and value is not None}
    changed = dict(backbone) | chosen | {"vocabulary_size": text["vocabulary_size"]}
    side = changed["image_size"]
    changed["models"] = dict(backbone["models"]) | {
        CHECKPOINT: {"text": text, "image": image | {"image_size": side}, "dim": found.sizes["dim"]}
    }
    changed["transform"] = _with(backbone, "transform", {"size": side} | found.pixels, typed)
    changed["protocol"] = _with(backbone, "protocol", {"text_len": text["positions"], "image": [side, side]}, typed)
    return changed


def _with(backbone: Mapping[str, Any], part: str, own: Mapping[str, Any], typed: set[str]) -> dict[str, Any]:
    return dict(backbone[part]) | {name: value for name, value in own.items() if f"backbone.{part}.{name}" not in typed}
