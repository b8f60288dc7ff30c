"""The types that settings are declared by, and the marks that say what else is true of a setting.

A type is what Python calls it: int, float, bool, str, Path, Literal, a union, Sequence, tuple, Mapping or a TypedDict of
settings, with an `Interval` or a `Predicate` in `Annotated`.  A value is what YAML and a command line can say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval, Len, Predicate

LONGEST = 100  # characters of a name, which a file's holds beside others
LARGEST, DEEPEST, PIXELS = 1_000_000, 1000, 4096  # beyond which no memory reaches, or no patience


@dataclass(frozen=True)
class Called:
    """What a type is called, after `must be`, where its own name does not say it."""

    words: str


@dataclass(frozen=True)
class Null:
    """What null means, after `or null`."""

    words: str


@dataclass(frozen=True)
class NotDecisive:
    """Another value gives the same run: where things lie, how they come there, what they run on, or how they are shown."""


@dataclass(frozen=True)
class NotItself(NotDecisive):
    """The same, as long as what it holds, of which there is a fingerprint, or what follows from it stays as it is."""


@dataclass(frozen=True)
class Before:
    """Every run before the setting existed had this value.  At it the setting is left out of the identity, so that those
    runs stay what they are."""

    value: Any


@dataclass(frozen=True)
class ByContent:
    """Of a file, or null: what it holds counts, by the data's fingerprint, and not where it lies."""


@dataclass(frozen=True)
class AnyOrder:
    """Of a list: its order and repetitions mean nothing."""


@dataclass(frozen=True)
class Folder:
    """Of a path: it leads to a folder, or to nothing yet."""


def is_name(text: str) -> bool:
    plain = text.isascii() and text[:1].isalnum() and len(text) <= LONGEST
    return plain and all(letter.isalnum() or letter in "._-" for letter in text)


def has_no_repetition(words: Sequence[Any]) -> bool:
    return len({*words}) == len(words)


def is_template(text: str) -> bool:
    return text.count("{}") == 1 and not {*"{}"} & {*text.replace("{}", "")}


Name = Annotated[
    str, Predicate(is_name), Called(f"a name of letters, digits, '.', '_' and '-', {LONGEST} at most")
]  # that files and folders are named by
Words = Annotated[
    Sequence[Annotated[str, Len(1)]],
    Predicate(has_no_repetition),
    Called("a list of words, none twice, or [] for none"),
]
Seeds = Annotated[
    Sequence[Annotated[int, Interval(ge=0, lt=2**31)]],
    Len(1),
    Predicate(has_no_repetition),
    Called("a list of different whole numbers from 0 on, one at least"),
]
Template = Annotated[str, Predicate(is_template), Called("a text that holds {} once, where a class name goes")]
FolderPath = Annotated[Path, Folder()]
Count = Annotated[int, Interval(ge=1)]
Number = Annotated[int, Interval(ge=0)]
Size = Annotated[int, Interval(ge=1, le=LARGEST)]
Layers = Annotated[int, Interval(ge=1, le=DEEPEST)]
Pixels = Annotated[int, Interval(ge=1, le=PIXELS)]
TextLength = Annotated[int, Interval(ge=3, le=LARGEST)]
Share = Annotated[float, Interval(ge=0, lt=1)]
Nonnegative = Annotated[float, Interval(ge=0)]
Positive = Annotated[float, Interval(gt=0)]
Seconds = Annotated[float, Interval(ge=0, le=86_400)]
Spec = Mapping[str, Any]  # of an object, whose constructor says what it takes
OPEN: Any = {"extra": "allow"}  # of settings, beside which stand those of a constructor
