"""Applying a literal key map: every tensor of the file and every tensor of the model is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from math import isqrt
from pathlib import Path

import torch
from torch import Size, Tensor, nn

from vltune.errors import UserError
from vltune.nn.embeddings import interpolate_positions
from vltune.weights.sizes import differences, sizes


class MisfitError(UserError):
    """A whole checkpoint of another backbone than the one it is read for."""


@dataclass(frozen=True)
class Family:
    """A checkpoint layout.

    name: what a user would call it.  marks: keys by which it is recognised, once `prepare` has tidied the names.
    rules: (their key, our key or keys, what to do with the tensor); `{i}` stands for every layer number.
    unused: beginnings of keys that the model has no use for.  spare: how the keys of layers begin of which the model may
    leave out the last; without it, of none.
    """

    name: str
    marks: Sequence[str]
    rules: Sequence[tuple[str, str | tuple[str, ...], Callable | None]]
    unused: Sequence[str] = ()
    spare: str | None = None
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


def inside(theirs: str, ours: str, rules: list[tuple]) -> list[tuple]:
    """A tower's rules where the tower is part of a larger model."""
    return [
        (theirs + source, ours + target if isinstance(target, str) else tuple(ours + t for t in target), change)
        for source, target, change in rules
    ]


def flat(tensor: Tensor) -> Tensor:
    """A patch convolution's weight (width, 3, p, p) as that of the same map on unfolded patches (width, 3 p^2)"""
    return tensor.flatten(1)


def is_stack(tensor: Tensor) -> bool:
    """Whether it is prompts of several layers as the authors' code saves them: (layers, 1, P, width)"""
    return tensor.dim() == 4 and tensor.shape[1] == 1 and tensor.numel() > 0


def transpose(tensor: Tensor) -> Tensor:
    return tensor.t()


def within(prefix: str, marks: Sequence[str] = ("",)):
    """Of a model that holds a backbone under `prefix`: the backbone's keys without it.

    Other keys are left out but those that end with one of `marks`: of another copy, such as moving averages.  Such a key,
    and one whose place is taken, stays as it is, so that it is told as unknown."""

    def prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
        inside = {key: tensor for key, tensor in state.items() if key.startswith(prefix)}
        if not inside:
            return state
        found = {key: state[key] for key in state if key not in inside and key.endswith(tuple(marks))}
        names = {key: name if (name := key.removeprefix(prefix)) not in found else key for key in inside}
        return found | {names[key]: tensor for key, tensor in inside.items()}

    return prepare


def fit(key: str, tensor: Tensor, size: Size) -> Tensor:
    """A pretrained tensor for a model of another size: a third token type starts as the second (NLVR2's second image),
    positions of a square grid, or Swin's relative ones, are interpolated to another resolution, as released."""
    if tensor.shape == size or tensor.dim() != len(size) or tensor.shape[-1] != size[-1] or not tensor.numel():
        return tensor
    if key == "token_type.weight" and 2 <= len(tensor) < size[0]:
        return torch.cat([tensor, tensor[-1:].expand(size[0] - len(tensor), -1)])
    of_grid = key in ("image.position", "position")
    if of_grid and tensor.dim() == 3:
        return stretch_positions(tensor, size)
    if (of_grid or key.endswith("relative_position_bias_table")) and isqrt(len(tensor)) ** 2 == len(tensor):
        return interpolate_positions(tensor, isqrt(size[0]))
    return tensor


def stretch_positions(tensor: Tensor, size: Size) -> Tensor:
    """(g, g, width) -> size (G, G, width), as ViLT stretches them to every image: bilinear, corners aligned"""
    grid = tensor.float().permute(2, 0, 1)[None]
    larger = nn.functional.interpolate(grid, size=size[:2], mode="bilinear", align_corners=True)
    return larger[0].permute(1, 2, 0).to(tensor.dtype)


@dataclass(frozen=True)
class Match:
    """How the tensors of a file stand to those of a model.

    own: the model's.  given: the file's by our keys, those that the model has no use for among them; sources: the keys that
    they have in the file.  may_lack: keys that the file need not have.  twice: keys of the file that stand for the same.
    """

    own: dict[str, Tensor]
    given: dict[str, Tensor]
    sources: dict[str, str]
    may_lack: Collection[str] = ()
    twice: Sequence[str] = ()

    @cached_property
    def fitted(self) -> dict[str, Tensor]:
        """What the model takes."""
        return {key: fit(key, tensor, self.own[key].shape) for key, tensor in self.given.items() if key in self.own}

    @property
    def lacks(self) -> list[str]:
        return [key for key in self.own if key not in self.given]

    @property
    def missing(self) -> list[str]:
        return [key for key in self.lacks if key not in self.may_lack]

    @property
    def unknown(self) -> list[str]:
        """The file's names of what the model has no use for."""
        return list(dict.fromkeys(self.sources[key] for key in self.given if key not in self.own))

    @property
    def wrong(self) -> list[str]:
        return [
            f"{key} {tuple(tensor.shape)} for {tuple(self.own[key].shape)}"
            for key, tensor in self.fitted.items()
            if tensor.shape != self.own[key].shape
        ]

    @property
    def problems(self) -> dict[str, list[str]]:
        """Kind -> keys; empty where the file fits."""
        kinds = {
            "of another size": self.wrong,
            "missing in the file": self.missing,
            "unknown in the file": self.unknown,
            "twice in the file": self.twice,
        }
        return {kind: keys for kind, keys in kinds.items() if keys}

    @property
    def adapted(self) -> dict[str, tuple[int, int]]:
        """Which sizes of the file were changed, from what and to what."""
        before, after = sizes(self.given), sizes(self.given | self.fitted)
        return {name: (size, after[name]) for name, size in before.items() if size != after[name]}

    def mismatch(self, model: str) -> str:
        """The three most telling: sizes where these differ, keys otherwise.  model: what the model is called."""
        told = differences(sizes(self.given | self.fitted), sizes(self.own), model)
        return "; ".join(told[:3] or [f"{kind}: {shorten(keys)}" for kind, keys in self.problems.items()])


def shorten(keys: Sequence[str]) -> str:
    return ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def match(
    model: nn.Module, state: dict[str, Tensor], family: Family, path: Path, may_lack: Collection[str] = ()
) -> Match:
    own = model.state_dict()
    found = translate(family.prepare(state), family, path)
    used = {theirs for theirs, ours, _ in found if ours in own}
    unused = (*family.unused, *spare(family, used, [theirs for theirs, *_ in found]))
    kept = [row for row in found if row[1] in own or not (row[0] in used or row[0].startswith(unused))]
    sources: dict[str, str] = {}
    twice = [
        f"{theirs} and {other}" for theirs, ours, _ in kept if (other := sources.setdefault(ours, theirs)) != theirs
    ]
    return Match(own, {ours: tensor for _, ours, tensor in kept}, sources, may_lack, twice)


def spare(family: Family, used: Collection[str], theirs: Collection[str]) -> list[str]:
    """How the keys begin of the one layer that the model may leave out: the last, where it uses all before it."""
    if family.spare is None:
        return []
    last = max(map(partial(layer, family.spare), theirs), default=0)
    return [f"{family.spare}{last}."] if max(map(partial(layer, family.spare), used), default=0) == last - 1 else []


def layer(start: str, key: str) -> int:
    """The number after `start`, or -1."""
    number = key.removeprefix(start).partition(".")[0]
    return int(number) if key.startswith(start) and number.isdecimal() else -1


def translate(state: dict[str, Tensor], family: Family, path: Path) -> list[tuple[str, str, Tensor]]:
    """(their key, our key, tensor), for every rule that applies; a key that no rule names stands for itself."""
    found = []
    for theirs, ours, change in family.rules:
        for layer in count() if "{i}" in theirs else (0,):
            source = theirs.replace("{i}", str(layer))
            if source not in state:
                break
            targets = [key.replace("{i}", str(layer)) for key in ([ours] if isinstance(ours, str) else ours)]
            try:
                tensors = change(state[source]) if change else state[source]
                tensors = [tensors] if isinstance(ours, str) else tensors
                found += [(source, target, tensor) for target, tensor in zip(targets, tensors, strict=True)]
            except (RuntimeError, IndexError, ValueError, TypeError):
                shape = tuple(state[source].shape)
                raise UserError(f"{path}: {source} has shape {shape}, which {family.name} cannot have") from None
    named = {theirs for theirs, _, _ in found}
    return [(key, key, tensor) for key, tensor in state.items() if key not in named] + found


def load(
    model: nn.Module,
    state: dict[str, Tensor],
    family: Family,
    path: Path,
    may_lack: Collection[str] = (),
    name: str = "this backbone",
) -> list[str]:
    """Copies `state` into `model` by the family's map; returns those keys of `may_lack` that the file does not have.

    may_lack: our keys that a checkpoint need not have.  name: what the model is called.  Raises MisfitError on any other
    leftover on either side and on other shapes, UserError on values that are not finite."""
    matched = match(model, state, family, path, may_lack)
    if matched.problems:
        raise MisfitError(f"{path} ({family.name}) does not fit {name}: {matched.mismatch(name)}")
    for key, tensor in matched.fitted.items():
        check_values(path, matched.sources[key], tensor, matched.own[key].dtype)
    with torch.no_grad():
        for key, tensor in matched.fitted.items():
            matched.own[key].copy_(tensor)
    return matched.lacks


def check_values(path: Path, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """dtype: the model's, in which the values must be finite too."""
    if is_foreign(tensor.dtype):
        raise UserError(f"{path}: {holds(name, tensor.dtype)}")
    if not (finite := tensor.to(dtype).isfinite()).all():
        bad = f"{int((~finite).sum()):,} of {tensor.numel():,} values of {name} are NaN or infinite"
        raise UserError(f"{path}: {bad}: a damaged or diverged checkpoint; download it again or use another")


def is_foreign(dtype: torch.dtype) -> bool:
    """Whether no backbone's weights are of that kind."""
    return not dtype.is_floating_point or dtype.itemsize == 1


def holds(name: str, dtype: torch.dtype) -> str:
    """What is said of a tensor whose kind is foreign."""
    kind = str(dtype).removeprefix("torch.")
    return f"{name} holds {kind}: perhaps a quantised checkpoint; use one of float32, float16 or bfloat16"


def recognise(state: dict[str, Tensor], families: Sequence[Family], path: Path) -> Family:
    if family := recognised(state, families):
        return family
    if beneath := within_names(state, families):
        raise UserError(f"{path}: {beneath}")
    known = "; ".join(f"{family.name} (has {family.marks[0]})" for family in families)
    some = ", ".join(list(state)[:3])
    raise UserError(f"{path}: a foreign checkpoint: its first keys are {some}; known layouts: {known}")


def within_names(state: Collection[str], families: Sequence[Family]) -> str | None:
    """In words, where a known layout has something before all its names, and how to save it without."""
    for family in families:
        first, *others = (f".{mark}" for mark in family.marks)
        befores = sorted(key.removesuffix(first) for key in state if key.endswith(first))
        if found := [f"{before}." for before in befores if all(before + mark in state for mark in others)]:
            alone = f'{{k.removeprefix("{found[0]}"): v for k, v in state.items() if k.startswith("{found[0]}")}}'
            return f"holds {family.name} under {', '.join(found[:3])}; save one alone, as in torch.save({alone}, FILE)"
    return None


def recognised(state: dict[str, Tensor], families: Sequence[Family]) -> Family | None:
    return next((f for f in families if set(f.marks) <= f.prepare(state).keys()), None)
