"""Reading checkpoint files.  Nothing that a file contains is ever executed."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections import OrderedDict
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from vltune.errors import UserError
from vltune.weights import torchscript

PACKAGE = "pkg://vltune/"
# As transformers names a model's file; with INDEX, the list of a model's several files.
MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"


class StandIn:
    """Takes the place of a class that a checkpoint refers to, and does nothing."""


# What Lightning 1.x and Sacred leave in the official ViLT and METER checkpoints beside tensors.
INERT = {
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": StandIn,
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor": StandIn,
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping": StandIn,
    "pytorch_lightning.utilities.parsing.AttributeDict": OrderedDict,
    "sacred.config.custom_containers.ReadOnlyDict": OrderedDict,
    "sacred.config.custom_containers.DogmaticDict": OrderedDict,
}


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


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a PyTorch checkpoint, or of an index of such, by name without wrappers'.

    Where a file's format allows, a tensor's values are read from the disk when they are first used."""
    state = {}
    for part in parts(path):
        state |= read_safetensors(part) if part.suffix == ".safetensors" else read_pickle(part)
    if not state:
        raise UserError(f"{path}: holds no tensors, so it is no model checkpoint")
    return unwrap(state)


# How DistributedDataParallel and a model that holds the model begin every name; torch.compile puts its own anywhere.
WRAPPERS = ("module.", "model.")
COMPILED = "_orig_mod."


def unwrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}
    while wrapper := next((w for w in WRAPPERS if all(name.startswith(w) for name in state)), None):
        state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    return state


def read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from None


def read_pickle(path: Path) -> dict[str, Tensor]:
    """A `.ckpt`, `.pt` or `.bin`: only tensors and plain values are read, known class names become inert stand-ins."""
    if torchscript.is_torchscript(path):
        return torchscript.read(path)
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in INERT.items()]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: refused, nothing in it was run: {reason(error)}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: truncated or not a PyTorch checkpoint ({first}); download it again") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state dict of tensors, so it is no model checkpoint")
    return state


def form(path: Path) -> str:
    """What a person calls the file's format."""
    first, *more = parts(path)
    if first.suffix == ".safetensors":
        name = "safetensors"
    elif torchscript.is_torchscript(first):
        name = "TorchScript"
    else:
        name = "PyTorch pickle" if zipfile.is_zipfile(first) else "PyTorch pickle of before 1.6"
    return f"{name}, {1 + len(more)} files" if more else name


def reason(error: Exception) -> str:
    """The line of torch's long message that says what was refused."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = next((line for line in lines if "GLOBAL" in line), None)
    if telling is None:
        return "not a PyTorch checkpoint"
    return f"it asks for code to be run ({telling.split('. ')[0].removeprefix('WeightsUnpickler error: ')})"
