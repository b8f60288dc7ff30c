"""Reading checkpoint files.  Nothing that a file contains is ever executed."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from vltune.errors import UserError
from vltune.weights import torchscript
from vltune.weights.finding import parts


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
