"""Which images a few-shot run trains on: a function of their names and a seed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import get_args

import numpy as np

from vltune.errors import UserError
from vltune.settings.task import Shots

OF_FEW = ("few_shot", "base_to_new")
"""Protocols that train on so many images of a class."""


def in_order(names: Iterable[str], seed: int) -> list[str]:
    """Names in an order that looks random, and in which none moves past another where some come or go."""
    return sorted(names, key=lambda name: (sha256(f"{seed} {name}".encode()).digest(), name))


def drawn(names: Sequence[str], labels: np.ndarray, wanted: dict[int, int], seed: int) -> np.ndarray:
    """Places of images, ascending: of each label the first so many in the order of `in_order`, all where it has fewer.

    names, labels: of each image.  wanted: how many of which label.  The images of a smaller number are among those of a
    larger one."""
    found: list[int] = []
    for label, count in wanted.items():
        of = {names[place]: int(place) for place in np.flatnonzero(labels == label)}
        found += [of[name] for name in in_order(of, seed)[:count]]
    return np.array(sorted(found), int)


def spread(names: Sequence[str], labels: np.ndarray, count: int) -> np.ndarray:
    """Places of `count` images, ascending, of all labels as many as can be: the first of each in the order of `in_order`,
    then the second of each, and so on."""
    order = {name: place for place, name in enumerate(in_order({*names}, 0))}
    seen: Counter[int] = Counter()
    turns = []
    for place in sorted(range(len(names)), key=lambda place: order[names[place]]):
        seen[label := int(labels[place])] += 1
        turns.append((seen[label], order[names[place]], place))
    return np.array(sorted(place for *_, place in sorted(turns)[:count]), int)


def base_classes(count: int) -> range:
    """The labels of the base classes: the first half, which is the larger one of an odd number."""
    return range((count + 1) // 2)


def require(labels: np.ndarray, of: Iterable[int], shots: int, classes: Sequence[str]) -> None:
    """UserError where a label has fewer images than are wanted of each."""
    counts = {label: int((labels == label).sum()) for label in of}
    if (least := min(counts.values())) < shots:
        name = classes[min(counts, key=counts.get)]
        fits = max((each for each in get_args(Shots) if each <= least), default=None)
        fix = f"{least} is the most that works: task.shots={fits}" if least else "leave the class out"
        raise UserError(f"task.shots={shots}: the class {name!r} has {least} training images; {fix}")


def digest(names: Iterable[str]) -> str:
    """SHA-256 of a list of images, in whatever order, hexadecimal."""
    return sha256("\n".join(sorted(names)).encode()).hexdigest()


def apart(classes: Sequence[str]) -> list[str]:
    """Of each class a name that no other has: some data sets give two classes one."""
    times = Counter(classes)
    return [name if times[name] == 1 else f"{name} ({label})" for label, name in enumerate(classes)]
