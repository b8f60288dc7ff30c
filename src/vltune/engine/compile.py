"""What torch.compile makes of a model, kept for the next run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import nn

from vltune.errors import UserError

FOLDER = "TORCHINDUCTOR_CACHE_DIR"
COMPILERS = ("g++", "clang++")
GRAPHS = 64  # of one model: a batch may pad texts, images, both or none, and torch compiles anew for some of its sizes


def compiled(model: nn.Module, folder: Path | str) -> nn.Module:
    """A module that shares the model's parameters and computes the same by compiled code, whole: no part of it runs in
    Python.  folder: where that is kept, unless the environment says.  UserError where nothing compiles here."""
    if "CXX" not in os.environ and not any(map(shutil.which, COMPILERS)):
        raise UserError(
            f"engine.compile=true: needs a C++ compiler, such as {COMPILERS[0]}; install one or leave it out"
        )
    os.environ.setdefault(FOLDER, str(Path(folder, "compiled").resolve()))
    torch._dynamo.config.recompile_limit = GRAPHS
    return torch.compile(model, fullgraph=True)


def untraced(error: Exception) -> UserError | None:
    """What a person is told where that cannot be compiled; None of another error."""
    if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return None
    error = getattr(error, "inner_exception", error)  # of what makes code of its graphs
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return UserError(f"engine.compile=true: the model cannot be compiled whole ({first}); leave it out")
