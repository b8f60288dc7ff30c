"""One process at a time in a folder, where several would make the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vltune.errors import UserError


@contextmanager
def turn(folder: Path, check: Callable[[], object], computed: str, fix: str) -> Iterator[None]:
    """The folder is made, and this process's alone as long as this lasts; the others wait, and call `check` every second.

    computed: what is made there, for the line of who waits.  UserError, with the fix, where the folder cannot be made or
    locked."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}): {fix}") from None
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"{folder}: waiting for the process that computes these {computed}", file=sys.stderr)
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise UserError(f"{folder}: cannot be locked ({getattr(error, 'strerror', None) or error}): {fix}") from None
    while not lock.is_locked:
        check()
        with suppress(Timeout):
            lock.acquire(timeout=1)
    try:
        yield
    finally:
        lock.release()
