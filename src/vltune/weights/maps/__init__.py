"""Literal key maps, one file for each family of checkpoints, found by being here.

A file holds `FAMILIES`, layouts of a whole backbone, or `TOWERS`, {the part of a backbone that a tower is: its layouts}.
"""

from __future__ import annotations

from collections import defaultdict
from importlib import import_module
from pkgutil import iter_modules

from vltune.weights.keys import Family

_MAPS = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
FAMILIES: tuple[Family, ...] = tuple(family for module in _MAPS for family in getattr(module, "FAMILIES", ()))
TOWERS: dict[str, tuple[Family, ...]] = defaultdict(tuple)
for _module in _MAPS:
    for _part, _families in getattr(_module, "TOWERS", {}).items():
        TOWERS[_part] += _families
