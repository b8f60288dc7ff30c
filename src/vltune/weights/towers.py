"""Loading a tower's own checkpoint."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vltune.weights.files import read
from vltune.weights.keys import load, recognise
from vltune.weights.maps import TOWERS


def load_tower(tower: nn.Module, path: Path, part: str) -> None:
    """Loads the `text` or the `image` tower of a backbone from any layout that is known."""
    state = read(path)
    load(tower, state, recognise(state, TOWERS[part], path), path, name=f"this backbone's {part} tower")
