"""What a checkpoint says of a backbone's configuration, `backbone.model=checkpoint`: of CLIP, or a folder of diffusers'."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vltune.weights.architecture import Architecture

CHECKPOINT = "checkpoint"


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


@cache
def is_denoiser(file: Path, *_: int) -> bool:
    """Whether a checkpoint is a text-to-image model's."""
    from vltune.weights.files import read
    from vltune.weights.finding import PIPELINE
    from vltune.weights.keys import recognised
    from vltune.weights.maps.diffusion import FAMILIES

    return file.name == PIPELINE or recognised(read(file), FAMILIES) is not None


def of_folder(backbone: Mapping[str, Any], found: Mapping[str, Any], typed: Collection[str] = ()) -> dict[str, Any]:
    """A backbone's configuration with what a folder of diffusers' says in the place of all that was not typed.

    found: an entry of `backbone.pipelines`."""
    side = backbone["image_size"] if "backbone.image_size" in typed else found["image_size"]
    changed = dict(backbone) | {"pipelines": dict(backbone["pipelines"]) | {CHECKPOINT: found}, "image_size": side}
    changed["vocabulary_size"] = found["text"]["vocab_size"]
    changed["max_text_len"] = length = found["text"]["max_position_embeddings"]
    changed["tokenizer"] = _with(backbone, "tokenizer", {"padding": found["padding"]}, typed)
    changed["transform"] = _with(backbone, "transform", {"size": side}, typed)
    changed["protocol"] = _with(backbone, "protocol", {"text_len": length, "image": [side, side]}, typed)
    return changed


def taken(backbone: Mapping[str, Any], found: Architecture, typed: Collection[str] = ()) -> dict[str, Any]:
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


def _with(
    backbone: Mapping[str, Any], part: str, own: Mapping[str, Any], typed: Collection[str] = ()
) -> dict[str, Any]:
    return dict(backbone[part]) | {name: value for name, value in own.items() if f"backbone.{part}.{name}" not in typed}
