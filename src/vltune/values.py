"""Values as a person typed them: how they are shown, what was perhaps meant, and what can be a path."""

from __future__ import annotations

import difflib
import errno
import math
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vltune.errors import UserError

SHOWN = 80  # characters of a value, at most


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


def finite(name: str, value: float | None) -> None:
    """UserError for a number of an option that is none, or has no end."""
    if value is not None and not math.isfinite(value):
        raise UserError(f"{name}={value}: must be a finite number")


def key_of(argument: str) -> str:
    """What an argument of Hydra's sets, adds or leaves out: `method.rank` of `++method.rank=8`."""
    return argument.lstrip("+~").partition("=")[0]


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
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_shown, value))}]"
    return str(value)


def instead(key: object, known: Iterable[object]) -> str:
    """What was perhaps meant by a name that is not there, and what there is."""
    known = [str(each) for each in known]
    near = difflib.get_close_matches(str(key), known, n=1)
    return (f"did you mean {near[0]}? " if near else "") + (
        f"there are {', '.join(known)}" if known else "there is none"
    )
