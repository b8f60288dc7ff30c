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

    source: where the file comes from, to be told where it is missing."""
    path = locate(weights)
    if path.is_dir():
        for name in ("model.safetensors", "pytorch_model.bin"):
            if (path / name).is_file():
                return path / name
        raise UserError(f"weights={weights}: the folder holds neither model.safetensors nor pytorch_model.bin")
    if path.is_file():
        return path
    if weights.count("/") == 1 and not path.suffix and not path.parent.exists():
        return from_hub(weights)
    raise UserError(f"weights={weights}: no such file" + (f"; it comes from {source}" if source else ""))


def from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "model.safetensors"))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"weights={name}: neither a file here nor a model that the hub could give ({type(error).__name__}); "
            "download it where there is a network and give its path"
        ) from None


def fingerprint(path: Path) -> str:
    """SHA-256 of the file, hexadecimal."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a PyTorch checkpoint, by name."""
    return read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)


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
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def reason(error: Exception) -> str:
    """The line of torch's long message that says what was refused."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = next((line for line in lines if "GLOBAL" in line), None)
    if telling is None:
        return "not a PyTorch checkpoint"
    return f"it asks for code to be run ({telling.split('. ')[0].removeprefix('WeightsUnpickler error: ')})"
