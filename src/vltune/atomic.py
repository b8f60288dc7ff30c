"""Writing a file whole or not at all, and reading one that another machine may be replacing."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vltune.errors import UserError

ROOM = 1 << 18  # bytes; a record with a traceback has some 30,000
PATIENCE = 0.05, 0.2, 0.5, 1.0, 2.0  # seconds between looks


def read_whole(file: Path) -> tuple[bytes, float]:
    """What a file holds, and when it was written by the file system's clock.

    A network's file system may for a second or two know a file that was replaced by its old name alone (ESTALE)."""
    for pause in PATIENCE:
        try:
            return _read(file)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(pause)
    return _read(file)


def _read(file: Path) -> tuple[bytes, float]:
    with file.open("rb") as opened:
        return opened.read(), os.fstat(opened.fileno()).st_mtime


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a temporary path beside `file`; what was written there takes the name `file` in one step at the end.

    A reader sees the old content or the new one.  Raises UserError that names the folder where it cannot be written or
    the disk is full, and where there is something else than a file: a name that a device had would be the file's."""
    temporary = None
    try:
        if file.exists() and not file.is_file():  # a folder, a device, a pipe
            raise UserError(f"{file}: is no file, and nothing takes its place; name a file")
        if file.is_symlink():  # what it leads to is written, and it stays a link
            file = file.resolve()
        temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    except OSError as error:
        reason = f"{file.parent}: {file.name} cannot be written here ({error.strerror or error})"
        raise UserError(f"{reason}: free space, or name another folder") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                if temporary.exists():
                    os.truncate(temporary, 0)  # a writer that an error keeps alive would hold its space
                temporary.unlink(missing_ok=True)


@contextmanager
def reserve(file: Path) -> Iterator[None]:
    """Keeps ROOM on the disk of `file` as long as it lasts, so that where the disk is full meanwhile that can be written
    down afterwards.  A disk that has not even that is left as it is."""
    try:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(ROOM))  # which no file system compresses
        yield
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)
