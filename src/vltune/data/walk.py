"""What lies below a folder, links to folders followed, and what it may be called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from vltune.errors import UserError
from vltune.values import printable


def folders_below(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """It and every folder below, each once, and the names of its files; not those that hold it, whatever links to them."""
    names = (folder.absolute(), folder.resolve())  # as it was reached, and where it is
    seen = {os.path.realpath(parent) for name in names for parent in name.parents}
    for top, below, names in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(top)) in seen:
            below.clear()
            continue
        seen.add(place)
        below.sort()
        yield Path(top), names


def last_change(folders: Iterable[Path], but: Path) -> int:
    """The last time of change below folders, in nanoseconds, links followed; unpacking does not set this back, and a copy
    has one of its own.

    but: what lies in there does not count, unless the folder does itself."""
    latest, but = 0, but.resolve()
    for folder in folders:
        counts = folder.resolve().is_relative_to(but)
        for top, names in folders_below(folder):
            if counts or not top.resolve().is_relative_to(but):
                for path in (top, *(top / name for name in names)):
                    with suppress(OSError):  # gone meanwhile, or a link to nothing
                        latest = max(latest, os.lstat(path).st_ctime_ns)
                        latest = max(latest, path.stat().st_ctime_ns)
    return latest


def is_time_of(file: Path, time: int) -> bool:
    """Whether a file was given this time, in nanoseconds, to the last digit that its file system keeps."""
    kept = file.stat().st_mtime_ns
    digit = max(10**zeros for zeros in range(10) if kept % 10**zeros == 0)
    return time // digit == kept // digit


def sizes_below(folder: Path) -> Iterator[int]:
    """Of the files below a folder, in bytes."""
    for top, names in folders_below(folder):
        for name in names:
            with suppress(OSError):  # a link to nothing
                yield (top / name).stat().st_size


def digest(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 of where files are in a folder and of what each holds, hexadecimal; of one that cannot be read, nothing."""
    sha = sha256()
    for path in files:
        content = b""
        with suppress(OSError):
            content = path.read_bytes() if path.is_file() else b""
        sha.update(f"{path.relative_to(folder).as_posix()} {sha256(content).hexdigest()}\n".encode())
    return sha.hexdigest()


def check_name(path: Path) -> None:
    """UserError where a name is no text, as one in another encoding than the system's is not: no data set can hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{printable(str(path))}: its name is not in UTF-8; rename it") from None
