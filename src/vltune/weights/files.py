"""Reading checkpoint files.  Nothing that a file contains is ever executed."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor

from vltune.errors import UserError
from vltune.weights import forms, torchscript
from vltune.weights.finding import PIPELINE, index, parts, pipeline
from vltune.weights.states import ALONE, state_dict


class StandIn:
    """Takes the place of what a checkpoint refers to, and does nothing, whatever it is made of."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


# What training scripts leave in checkpoints beside tensors; Lightning 1.x and Sacred do in ViLT's and METER's own.
INERT = {
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": StandIn,
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor": StandIn,
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping": StandIn,
    "pytorch_lightning.utilities.parsing.AttributeDict": OrderedDict,
    "sacred.config.custom_containers.ReadOnlyDict": OrderedDict,
    "sacred.config.custom_containers.DogmaticDict": OrderedDict,
    "argparse.Namespace": StandIn,
    **{f"numpy.{core}.multiarray.{made}": StandIn for core in ("core", "_core") for made in ("scalar", "_reconstruct")},
    "numpy.dtype": StandIn,
    "numpy.ndarray": StandIn,
    "pathlib.PosixPath": StandIn,
    "pathlib.WindowsPath": StandIn,
}


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a PyTorch checkpoint, or of an index of such, by name without wrappers'; of a
    text-to-image model in diffusers' layout, each part's after `unet.`, `text.` or `vae.`.

    Where a file's format allows, a tensor's values are read from the disk when they are first used."""
    if path.name == PIPELINE:
        return {
            f"{part}.{name}": tensor for part, file in pipeline(path).items() for name, tensor in read(file).items()
        }
    listed = index(path)
    state = read_part(path) if listed is None else joined(path, listed)
    if not state:
        raise UserError(f"{path}: holds no tensors, so it is no model checkpoint")
    for name, tensor in state.items():
        if not (isinstance(name, str) and name.isprintable()):
            raise UserError(f"{path}: has a tensor under {forms.plain(name)}, which is no name of a parameter; {ALONE}")
        if odd := kept_oddly(tensor):
            raise UserError(f"{path}: {name} is stored {odd}; use a checkpoint of plain tensors")
    return unwrap(state, path)


def kept_oddly(tensor: Tensor) -> str | None:
    """In words how a tensor is stored, where that is not as its plain values."""
    if tensor.is_meta:
        return "without values"
    if tensor.is_quantized:
        return "as a quantised tensor"
    return None if tensor.layout is torch.strided else "as a sparse tensor"


def joined(path: Path, listed: dict[str, str]) -> dict[str, Tensor]:
    """Of the files that an index names; listed: {name of a tensor: its file}."""
    state: dict[str, Tensor] = {}
    for part in parts(path):
        tensors = read_part(part)
        if absent := [name for name, file in listed.items() if file == part.name and name not in tensors]:
            told = f"has no {forms.plain(absent[0])}, which {path.name} says it has: they are not of one model"
            raise UserError(f"{part}: {told}; copy or download all of them again")
        for name in tensors.keys() & state.keys():
            if not is_same(tensors[name], state[name]):
                told = f"has another {forms.plain(name)} than the files before it"
                raise UserError(f"{part}: {told}; copy or download all of them again")
        state |= tensors
    return state


def is_same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def read_part(path: Path) -> dict[str, Tensor]:
    if forms.form(path) == forms.SAFETENSORS:
        return read_safetensors(path)
    return read_pickle(path)


# How DistributedDataParallel and a model that holds the model begin every name; what torch.compile, FSDP and activation
# checkpointing put anywhere into it.
WRAPPERS = ("module.", "model.")
BEFORE = re.compile(r"^((module|model)\.)+")
WITHIN = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
AVERAGES = "n_averaged"  # which torch's AveragedModel counts beside what it wraps


def unwrap(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Names as the model itself has them.  UserError where two are one but for wrappers' names."""
    names = {name: WITHIN.sub("", name) for name in state}
    averaged = {name: plain for name, plain in names.items() if plain != AVERAGES}
    if averaged and all(plain.startswith("module.") for plain in averaged.values()):
        names = averaged
    while wrapper := next((w for w in WRAPPERS if all(name.startswith(w) for name in names.values())), None):
        names = {name: plain.removeprefix(wrapper) for name, plain in names.items()}
    bare: dict[str, str] = {}
    for name, plain in names.items():
        if (other := bare.setdefault(BEFORE.sub("", plain), name)) != name:
            raise UserError(f"{path}: has both {other} and {name}, and which is meant cannot be told; {ALONE}")
    return {plain: state[name] for name, plain in names.items()}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        forms.form(path)  # which tells what it is, where it is something else
        told = f"not a whole safetensors file ({forms.first_line(error)})"
        raise UserError(f"{path}: {told}; copy or download it again") from None


def read_pickle(path: Path) -> dict[str, Tensor]:
    """A `.ckpt`, `.pt` or `.bin`: only tensors and plain values are read, known class names become inert stand-ins."""
    if (form := forms.form(path)) == forms.TORCHSCRIPT:
        return torchscript.read(path)
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in INERT.items()]), catch_warnings():
            simplefilter("ignore")  # torch's, of pickles that it has not written
            if path.suffix == ".safetensors":  # by which torch.load would judge
                with path.open("rb") as file:
                    content = torch.load(file, map_location="cpu", weights_only=True)
            else:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=form == forms.PICKLE)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: refused, nothing in it was run: {reason(error)}") from None
    except Exception as error:  # each damage to a pickle makes Python fail in another way
        told = f"truncated or damaged PyTorch checkpoint ({forms.first_line(error)})"
        raise UserError(f"{path}: {told}; copy or download it again") from None
    return state_dict(content, path)


def form(path: Path) -> str:
    """What a person calls the file's format."""
    first, *more = parts(path)
    name = forms.form(first)
    return f"{name}, {1 + len(more)} files" if more else name


def reason(error: Exception) -> str:
    """The line of torch's long message that says what was refused."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = next((line for line in lines if "GLOBAL" in line), None)
    if telling is None:
        told = "a Python pickle that is no PyTorch checkpoint, or cannot be read without running it"
        return f"{told}; where it is yours, {ALONE}"
    asked = forms.plain(telling.split(". ")[0].removeprefix("WeightsUnpickler error: ").rstrip("."), 200)
    return f"it asks for code to be run ({asked}); where it is yours, {ALONE}"
