"""A judge that is read from a folder in transformers' layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from vltune.errors import UserError
from vltune.values import place

WEIGHTS = "model.safetensors"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
TOKENIZER, VOCABULARY = "tokenizer.json", ("vocab.json", "merges.txt")


def check_folder(folder: str, setting: str, reads: bool = False) -> Path:
    """UserError, one line, where a file is missing.  reads: texts, for which it has a tokenizer."""
    path = Path(place(setting, folder, folder=True))
    needed = ["config.json", WEIGHTS]
    if not (path / PROCESSOR).is_file():  # as transformers 5 writes it, beside a tokenizer
        needed.append(PREPROCESSOR)
    if reads and not all((path / name).is_file() for name in VOCABULARY):
        needed.append(TOKENIZER)  # transformers makes an empty one of nothing
    for name in needed:
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


def model(make: Callable[..., Any], folder: Path, setting: str, unread: str = "") -> Any:
    """Its weights, in float32 however they were saved, all of which are in the file, but for what begins with
    `unread` where that is something."""
    found, told = opened(partial(make, output_loading_info=True, dtype="float32"), folder, setting)
    missing = sorted(name for name in told["missing_keys"] if not (unread and name.startswith(unread)))
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{setting}={folder}: {WEIGHTS} has no {missing[0]}{others}, which {type(found).__name__} needs; "
            "is it of another model?"
        )
    return found


def opened(make: Callable[..., Any], folder: Path, setting: str) -> Any:
    """A part of it, from local files alone and from safetensors.  UserError where that is none."""
    try:
        return make(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{setting}={folder}: cannot be read ({str(error).splitlines()[0]}); fetch the folder again"
        ) from None
