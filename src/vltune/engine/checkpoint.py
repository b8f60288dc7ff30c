"""A run's checkpoint: what is trained, the optimiser, the schedule, the random state and the place in the data."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from vltune.atomic import replacing
from vltune.errors import UserError


def save(path: Path, content: dict) -> None:
    with replacing(path) as temporary, writing(path):
        torch.save(content, temporary)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """torch and safetensors report a full disk as an error of their own."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be written ({str(error).splitlines()[0]}): free space") from None


def load(path: Path) -> dict | None:
    """The checkpoint, or None where there is none; a damaged one is an error, never trusted."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: damaged ({str(error).splitlines()[0]}); delete it to start over") from None


def random_state() -> dict:
    """Of the processor and of this run's GPU: another machine may have fewer of those, or none."""
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][0])
