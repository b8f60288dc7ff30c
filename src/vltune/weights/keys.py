"""Applying a literal key map: every tensor of the file and every tensor of the model is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.nn.embeddings import interpolate_positions


@dataclass(frozen=True)
class Family:
    """A checkpoint layout.

    name: what a user would call it.  marks: keys by which it is recognised, once `prepare` has tidied the names.
    rules: (their key, our key or keys, what to do with the tensor); `{i}` stands for every layer number.
    unused: beginnings of keys that the model has no use for.
    """

    name: str
    marks: Sequence[str]
    rules: Sequence[tuple[str, str | tuple[str, ...], Callable | None]]
    unused: Sequence[str] = ()
    prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict


def both(theirs: str, ours: str) -> list[tuple]:
    """The rules of a layer with weight and bias."""
    return [(f"{theirs}.{p}", f"{ours}.{p}", None) for p in ("weight", "bias")]


def qkv(theirs: str, ours: str, joint: str = ".") -> list[tuple]:
    """The rules of one layer that holds query, key and value: `THEIRS.weight`, or `THEIRS_weight` with joint="_"."""
    return [
        (f"{theirs}{joint}{p}", tuple(f"{ours}.{part}.{p}" for part in ("query", "key", "value")), lambda t: t.chunk(3))
        for p in ("weight", "bias")
    ]


def flat(tensor: Tensor) -> Tensor:
    """A patch convolution's weight (width, 3, p, p) as that of the same map on unfolded patches (width, 3 p^2)"""
    return tensor.flatten(1)


def transpose(tensor: Tensor) -> Tensor:
    return tensor.t()


def fit(key: str, tensor: Tensor, size: torch.Size) -> Tensor:
    """A pretrained tensor for a model of another size: a third token type starts as the second (NLVR2's second image),
    positions of a square grid, or Swin's relative ones, are interpolated to another resolution, as released."""
    if key == "token_type.weight" and len(tensor) < size[0]:
        return torch.cat([tensor, tensor[-1:].expand(size[0] - len(tensor), -1)])
    of_grid = key in ("image.position", "position") and tensor.dim() == 2
    if (of_grid or key.endswith("relative_position_bias_table")) and len(tensor) != size[0]:
        return interpolate_positions(tensor, round(size[0] ** 0.5))
    return tensor


def load(
    model: nn.Module, state: dict[str, Tensor], family: Family, path: Path, absent: Iterable[str] = ()
) -> list[str]:
    """Copies `state` into `model` by the family's map; returns the keys of `absent` that the file does not have.

    `absent`: our keys that a checkpoint may lack.  Raises on any other leftover on either side, and on other shapes.
    """
    own = model.state_dict()
    converted, leftover = convert(family.prepare(state), family, own)
    converted = {key: fit(key, tensor, own[key].shape) for key, tensor in converted.items()}
    missing = [key for key in own if key not in converted]
    wrong = [
        f"{key} {tuple(tensor.shape)} for {tuple(own[key].shape)}"
        for key, tensor in converted.items()
        if tensor.shape != own[key].shape
    ]
    required = [key for key in missing if key not in set(absent)]
    for problem, keys in (
        ("of another size than the model", wrong),
        ("missing in the file", required),
        ("unknown in the file", leftover),
    ):
        if keys:
            shown = ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise UserError(f"{path} (layout: {family.name}) does not fit this backbone: {problem}: {shown}")
    model.load_state_dict({key: tensor.to(own[key].dtype) for key, tensor in converted.items()}, strict=False)
    return missing


def convert(state: dict[str, Tensor], family: Family, wanted: Container[str]) -> tuple[dict[str, Tensor], list[str]]:
    """(our key -> tensor, their keys that no rule names)"""
    converted = {key: tensor for key, tensor in state.items() if key in wanted}
    left = {key: tensor for key, tensor in state.items() if key not in converted}
    for theirs, ours, change in family.rules:
        for layer in count() if "{i}" in theirs else (0,):
            source = theirs.replace("{i}", str(layer))
            if source not in state:
                break
            targets = [key.replace("{i}", str(layer)) for key in ([ours] if isinstance(ours, str) else ours)]
            if not all(target in wanted for target in targets):
                continue
            tensors = change(state[source]) if change else state[source]
            converted |= zip(targets, [tensors] if isinstance(ours, str) else tensors, strict=True)
            left.pop(source, None)
    return converted, [key for key in left if not key.startswith(tuple(family.unused))]


def recognise(state: dict[str, Tensor], families: Sequence[Family], path: Path) -> Family:
    for family in families:
        tidied = family.prepare(state)
        if all(mark in tidied for mark in family.marks):
            return family
    known = "; ".join(f"{family.name} (has {family.marks[0]})" for family in families)
    some = ", ".join(list(state)[:3])
    raise UserError(f"{path}: a foreign checkpoint: its first keys are {some}; known layouts: {known}")
