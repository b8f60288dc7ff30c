"""A judge that is read from a folder in transformers' layout."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from vltune.errors import UserError
from vltune.values import place

WEIGHTS = "model.safetensors"
PREPROCESSOR = "preprocessor_config.json"


def check_folder(folder: str, setting: str) -> Path:
    """UserError, one line, where a file is missing."""
    path = Path(place(setting, folder, folder=True))
    for name in ("config.json", WEIGHTS, PREPROCESSOR):
        if not (path / name).is_file():
            raise UserError(
                f"{setting}={folder}: has no {name}; give a folder of transformers' with {WEIGHTS}, or null to judge later"
            )
    return path


def identity_of(folder: Path, kind: str) -> str:
    """Such as `ViTModel dino-vits16 1a2b3c4d5e6f`: the start of the SHA-256 of its weights beside the folder's name."""
    with (folder / WEIGHTS).open("rb") as file:
        digest = sha256()
        while part := file.read(2**20):
            digest.update(part)
    return f"{kind} {folder.name} {digest.hexdigest()[:12]}"


def opened(make: Callable[..., Any], folder: Path, setting: str) -> Any:
    """A part of it, from local files alone and from safetensors.  UserError where that is none."""
    try:
        return make(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{setting}={folder}: cannot be read ({str(error).splitlines()[0]}); fetch the folder again"
        ) from None
