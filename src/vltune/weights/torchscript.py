"""Reading the tensors of a TorchScript archive, which OpenAI's CLIP files are.

`torch.jit.load` would compile the archive's code.  Here only its `data.pkl` is read, and of that only tensors, plain
containers and which module holds what: a module's class is an inert stand-in, and any other name is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from vltune.errors import UserError
from vltune.weights.forms import CONSTANTS, first_line, plain

CLASSES = "__torch__"
DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
LISTS = ("build_boollist", "build_doublelist", "build_intlist", "build_tensorlist")


class RefusedError(Exception):
    """The archive names something that would be called and is not one of the few things that rebuild a tensor."""


class Part:
    """Takes the place of a module: its attributes, none of its code."""

    attributes: Any = None

    def __setstate__(self, attributes: Any) -> None:
        self.attributes = attributes


def root(archive: zipfile.ZipFile) -> str:
    """The folder that holds everything in a TorchScript archive."""
    return next(name.removesuffix(CONSTANTS) for name in archive.namelist() if name.endswith(CONSTANTS))


def read(path: Path) -> dict[str, Tensor]:
    """The archive's tensors by the path of the attributes that hold them, in the precision that they are stored in: those
    of `state_dict()`, and tensors that are neither parameters nor buffers, which the archive does not tell apart."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{root(archive)}/data.pkl") as file:
            tensors = dict(named(StateReader(file, archive).load()))
    except RefusedError as error:
        raise UserError(f"{path}: refused, nothing in it was run: {error}") from None
    except Exception as error:  # each damage to a pickle makes Python fail in another way
        told = f"truncated or damaged TorchScript archive ({first_line(error)})"
        raise UserError(f"{path}: {told}; download it again") from None
    if not tensors:
        raise UserError(f"{path}: a TorchScript archive that holds no tensors, so it is no model checkpoint")
    return tensors


def named(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Part) and isinstance(value.attributes, dict):
        for name, attribute in value.attributes.items():
            yield from named(attribute, f"{prefix}.{name}" if prefix else name)


class StateReader(pickle.Unpickler):
    """What `find_class` gives is all that a pickle can call."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile):
        super().__init__(file)
        self.archive = archive
        self.storages: dict[tuple[str, torch.dtype], Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == CLASSES or module.startswith(f"{CLASSES}."):
            return Part
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module == "torch.jit._pickle" and name in LISTS:
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return self.untagged
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise RefusedError(f"it asks for code to be run (GLOBAL {plain(f'{module}.{name}', 200)})")

    def persistent_load(self, location: tuple) -> Tensor:
        """location: storage, its type, its entry, the device it was on, its number of elements -> (elements,)"""
        _, dtype, key, _, count = location
        if (key, dtype) not in self.storages:
            data = bytearray(self.archive.read(f"{root(self.archive)}/data/{key}"))
            empty = torch.empty(0, dtype=dtype)
            self.storages[key, dtype] = torch.frombuffer(data, dtype=dtype, count=count) if count else empty
        return self.storages[key, dtype]

    def rebuild(self, storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
        """-> (*size); `as_strided` raises where that lies outside the storage."""
        return storage.as_strided(size, stride, offset)

    def untagged(self, value: Any, tag: str) -> Any:
        return value
