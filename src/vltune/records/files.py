"""Paths that may be anything: looked at without an exception, read without waiting for a pipe."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

from vltune import signatures
from vltune.atomic import read_whole
from vltune.errors import UserError

AWAY = "move it away"
NAMED = "give a record in it"


def is_there(path: Path) -> bool:
    """Whether anything has this name: also a link to nothing, and what may not be looked at."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def is_file(path: Path) -> bool:
    return stat.S_ISREG(_mode(path))


def is_same(path: Path, other: Path) -> bool:
    """Whether these are two names of one file or folder."""
    try:
        return path == other or path.samefile(other)
    except OSError:
        return False


def check_folder(path: Path, fix: str) -> None:
    """Raises UserError where it is no folder that can be looked into."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return
        reason = "a file, no folder"
    except (FileNotFoundError, NotADirectoryError):
        reason = "a link to what is not there" if is_there(path) else "no such folder"
    except OSError as error:
        reason = f"cannot be looked at ({error.strerror})"
    raise UserError(f"{path}: {reason}: {fix}")


def content(file: Path, what: str, instead: str = AWAY) -> bytes:
    """Of a file of JSON, say.  Raises UserError where it is none or cannot be read.

    instead: what to do about a folder, or a pipe, in a file's place"""
    if (mode := _mode(file)) and not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise UserError(f"{file}: is {kind}, no {what}: {instead}")
    try:
        return read_whole(file)[0]
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def told(file: Path, error: Exception) -> str:
    """What a file is that was taken for another, where a person can do something about it; else what the error says."""
    with suppress(OSError):
        if (found := signatures.identify_file(file)).fix:
            return f"{found.name}; {found.fix}"
    return " ".join(str(error).split())


def _mode(path: Path) -> int:
    """Of what a path leads to; 0 where that is nothing, or may not be looked at."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0
