"""Which files `weights=` means.  Nothing of them is read but their bytes, and torch is not needed."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

from vltune.errors import UserError

PACKAGE = "pkg://vltune/"
# As transformers names a model's file; with INDEX, the list of a model's several files.
MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"


def locate(weights: str) -> Path:
    """`pkg://vltune/...` is a file that comes with the package; anything else is a path."""
    if weights.startswith(PACKAGE):
        return Path(str(files("vltune").joinpath(weights.removeprefix(PACKAGE))))
    return Path(weights).expanduser()


def find(weights: str, source: str | None = None) -> Path:
    """The file behind `weights=`: a file, a folder that holds one, or a hub name where there is a network.

    source: where the file comes from, to be told where it is missing.  A model in several files is found by its index."""
    path = locate(weights)
    if path.is_dir():
        return in_folder(weights, path)
    if path.is_file():
        return path
    if weights.count("/") == 1 and not path.suffix and not path.parent.exists():
        return from_hub(weights)
    raise UserError(f"weights={weights}: no such file" + (f"; it comes from {source}" if source else ""))


def in_folder(weights: str, folder: Path) -> Path:
    for name in (f"{name}{ending}" for name in MODEL_FILES for ending in ("", INDEX)):
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others[0]
    some = ", ".join(file.name for file in others[:3])
    held = f"{len(others)} others, {some}" if others else "no other *.safetensors"
    raise UserError(f"weights={weights}: the folder holds none of {', '.join(MODEL_FILES)}, and {held}: name the file")


def from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        for file in map(Path, MODEL_FILES):
            wanted = [file.name, file.name + INDEX, f"{file.stem}-*-of-*{file.suffix}"]
            folder = Path(snapshot_download(name, allow_patterns=wanted))
            if any((folder / name).is_file() for name in wanted):
                break
        return in_folder(name, folder)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"weights={name}: neither a file here nor a model that the hub could give ({type(error).__name__}); "
            "download it where there is a network and give its path"
        ) from None


def parts(path: Path) -> list[Path]:
    """The files that hold the tensors: the file itself, or those that an index names.  Raises where one is not there."""
    if not path.name.endswith(INDEX):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        named = [path.parent / Path(name).name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: no index of a model's files (weight_map); copy or download it again") from None
    if missing := [file.name for file in named if not file.is_file()]:
        raise UserError(f"{path}: names files that are not beside it: {', '.join(missing[:3])}; copy or download them")
    return named


def fingerprint(path: Path) -> str:
    """SHA-256 of the file, or of the files of a model in several, hexadecimal."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    for part in parts(path):
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
