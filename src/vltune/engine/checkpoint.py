"""A run's checkpoint: what is trained, the optimiser, the schedule, the random state and the place in the data."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch

from vltune.errors import UserError


def write_atomically(path: Path, save) -> None:
    """`save(temporary)` writes the file, which then takes its name in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch and safetensors report a full disk as a RuntimeError
        raise UserError(f"{path.parent}: cannot write {path.name} ({error}); free space or set results_dir") from None
    finally:
        temporary.unlink(missing_ok=True) if path.parent.is_dir() else None


def save(path: Path, content: dict) -> None:
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load(path: Path) -> dict | None:
    """The checkpoint, or None where there is none; a damaged one is an error, never trusted."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: damaged ({str(error).splitlines()[0]}); delete it to start over") from None


def random_state() -> dict:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
