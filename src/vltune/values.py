"""What a setting takes, as a type that its consumer declares, and the line that a person gets where a value is not that.

Types: int, float (finite), bool, str, None, Path, Literal, unions, Sequence, tuple, Mapping, `Annotated` with a `Range`,
and tables {key: type} of nested settings.  A value is what YAML and a command line can say.
"""

from __future__ import annotations

import difflib
import errno
import stat
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vltune.errors import UserError

SHOWN = 80  # characters of a value, at most
LONGEST = 100  # characters of a name, which a file's holds beside others
LARGEST_WHOLE = 2**53  # which JSON holds exactly
LARGEST = 3.4e38  # of float32


@dataclass(frozen=True)
class Range:
    """Of a number: from `least` to `most`, or only to `below`; of what it may exceed but not be, `above`."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.above is not None:
            return f" above {self.above:g}" + (f", at most {self.most:g}" if self.most is not None else "")
        if (self.most, self.below) == (None, None):
            return f" of at least {self.least:g}"
        return f" from {self.least:g} to " + (f"{self.most}" if self.most is not None else f"below {self.below:g}")


@dataclass(frozen=True)
class Maybe:
    """In a table: a setting that may be left out; with `null`, one that may be null too."""

    kind: Any
    null: bool = False


@dataclass(frozen=True)
class Each:
    """Settings whose names are free, each of this type."""

    kind: Any


@dataclass(frozen=True)
class Words:
    """A list of words: of `known` ones, where those are given; not empty, unless `empty`; none twice, unless `twice`."""

    known: tuple[str, ...] = ()
    empty: bool = False
    twice: bool = False


class Name:
    """A word that files and folders are named by."""


Folder = Annotated[Path, "a folder"]
Count = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, below=1)]
Nonnegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(above=0)]


def checked(name: str, value: Any, kind: Any, hint: str = "") -> Any:
    """The value, with `~` filled in where it is a path.  UserError that names the setting where it is not of this type.

    hint: what null means, after `or null`."""
    if isinstance(kind, Maybe):
        return None if kind.null and value is None else checked(name, value, kind.kind)
    if isinstance(kind, dict):
        return _table(name, value, kind)
    if isinstance(kind, Each):
        if not isinstance(value, Mapping):
            raise UserError(f"{said(name, value)}: must be {{name: ..., ...}}")
        return {key: checked(f"{name}.{key}", each, kind.kind) for key, each in value.items()}
    kinds = _members(kind)
    if value is None and type(None) in kinds:
        return None
    if any(each in (Path, Folder) for each in kinds):
        return place(name, value, type(None) in kinds, Folder in kinds)
    if not any(_fits(value, each) for each in kinds):
        raise UserError(f"{said(name, value)}: must be {described(kind, hint)}{_too_large(value)}")
    return value


def _too_large(value: Any) -> str:
    if not isinstance(value, int | float) or abs(value) <= LARGEST_WHOLE:
        return ""
    return f", at most {LARGEST_WHOLE}" if isinstance(value, int) else f", at most {LARGEST:g}"


def _table(name: str, value: Any, table: Mapping[str, Any]) -> dict:
    if not isinstance(value, Mapping):
        raise UserError(f"{said(name, value)}: must be {{{', '.join(f'{key}: ...' for key in table)}}}")
    for key in value:
        if key not in table:
            raise UserError(f"{name}.{key}: there is no such setting; {instead(key, table)}")
    result = dict(value)
    for key, kind in table.items():
        if key in value:
            result[key] = checked(f"{name}.{key}", value[key], kind)
        elif not isinstance(kind, Maybe):
            raise UserError(f"{name}.{key}: is missing; a run needs it")
    return result


def _members(kind: Any) -> tuple:
    """Of a union its members; else the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if kind in (None, type(None)):
        return value is None
    if isinstance(kind, Words):
        return (
            _is_list(value)
            and all(isinstance(each, str) and each and each in (kind.known or [each]) for each in value)
            and (kind.twice or len({*value}) == len(value))
            and (kind.empty or len(value) > 0)
        )
    if kind is Name:
        plain = isinstance(value, str) and value.isascii() and value[:1].isalnum() and len(value) <= LONGEST
        return plain and all(letter.isalnum() or letter in "._-" for letter in value)
    if origin is Annotated:
        return _fits(value, inner[0]) and all(_keeps(value, limit) for limit in inner[1:])
    if origin is Literal:
        return any(type(value) is type(known) and value == known for known in inner)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is tuple and inner[-1] is not Ellipsis:
        return _is_list(value) and len(value) == len(inner) and all(map(_fits, value, inner))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(isinstance(k, str) and _fits(v, inner[1]) for k, v in value.items())
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return _is_list(value) and all(_fits(each, inner[0]) for each in value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_WHOLE
    if kind is float:  # NaN is not at most anything
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    if kind is Path:
        return isinstance(value, str) and bool(value.strip())
    return isinstance(value, kind)


def _keeps(value: Any, limit: Any) -> bool:
    return _fits(value, limit) if isinstance(limit, Words) else value in limit


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def described(kind: Any, hint: str = "") -> str:
    """What a type is called, after `must be`."""
    kinds = _members(kind)
    named = " or ".join(_described(each) for each in kinds if each not in (None, type(None)))
    return named + (f", or null{hint}" if type(None) in kinds or None in kinds else "")


def _described(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, Words):
        what = f"of {', '.join(kind.known)}" if kind.known else "of words"
        twice = "" if kind.twice else ", none twice"
        return f"a list {what}{twice}" + (", or [] for none" if kind.empty else ", at least one")
    if kind is Name:
        return f"a name of letters, digits, '.', '_' and '-', {LONGEST} at most"
    if origin is Annotated:
        words = next((_described(limit) for limit in inner[1:] if isinstance(limit, Words)), _described(inner[0]))
        return words + "".join(str(limit) for limit in inner[1:] if isinstance(limit, Range))
    if origin is Literal:
        options = [f'"{each}"' if each in ("true", "false", "null") else str(each) for each in inner]
        return f"one of {', '.join(options)}" if len(options) > 1 else options[0]
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}, each {_described(inner[0])}"
    if isinstance(kind, dict | Each) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "{name: value, ...}"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return f"a list, each {described(inner[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", Path: "a path"}
    return names.get(kind, "{name: value, ...}" if kind is dict else "something else")


def place(name: str, value: Any, null: bool = False, folder: bool = False) -> str:
    """A path with `~` filled in, for a setting or an option `name`.

    UserError for what no path can be: another type, an empty text, a link that leads nowhere or to itself, a name that no
    file system takes, a device or a pipe, which may never end; with `folder`, a file."""
    if isinstance(value, Path):  # a default of the code
        return str(value)
    if not isinstance(value, str):
        quoted = f"; if it is called that: {name}='\"{value}\"'" if isinstance(value, int | float) else ""
        raise UserError(f"{said(name, value)}: must be a path{', or null' if null else ''}{quoted}")
    if not value.strip():
        raise UserError(f"{name} is empty: give a path; an unset variable of the shell leaves none")
    try:
        path = Path(value).expanduser()
        mode = path.stat().st_mode
        if not (stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and not folder)):
            found = "a file, not a folder" if stat.S_ISREG(mode) else "neither a file nor a folder"
            raise UserError(f"{said(name, value)}: is {found}; give another path")
    except FileNotFoundError:
        if link := next((each for each in (path, *path.parents) if each.is_symlink() and not each.exists()), None):
            raise UserError(f"{said(name, value)}: {link} is a link to {link.readlink()}, which is not there") from None
    except NotADirectoryError:
        file = next(each for each in path.parents if each.exists())
        raise UserError(f"{said(name, value)}: {file} is a file, not a folder; give another path") from None
    except OSError as error:
        told = "a link to itself" if error.errno == errno.ELOOP else error.strerror
        raise UserError(f"{said(name, value)}: cannot be looked at ({told}); give another path") from None
    except (ValueError, RuntimeError) as error:  # a NUL character; no such user, or no home
        raise UserError(f"{said(name, value)}: no path ({error}); give another") from None
    return str(path) if value.startswith("~") else value


def said(name: str, value: Any) -> str:
    """`name=value` as it is typed."""
    return f"{name}={shown(value)}"


def shown(value: Any) -> str:
    """A value as a command line has it, on one line and not too long."""
    text = printable(_shown(value))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def printable(text: str) -> str:
    """On one line, and nothing in it that a terminal takes for a command."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(each)}" for key, each in value.items()) + "}"
    if _is_list(value):
        return f"[{','.join(map(_shown, value))}]"
    return str(value)


def instead(key: object, known: Iterable[object]) -> str:
    """What was perhaps meant by a name that is not there, and what there is."""
    known = [str(each) for each in known]
    near = difflib.get_close_matches(str(key), known, n=1)
    return (f"did you mean {near[0]}? " if near else "") + (
        f"there are {', '.join(known)}" if known else "there is none"
    )
