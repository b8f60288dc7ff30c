"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vltune.errors import UserError


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a temporary path beside `file`; what was written there takes the name `file` in one step at the end.

    A reader sees the old content or the new one.  Raises UserError that names the folder where it cannot be written or
    the disk is full."""
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    except OSError as error:
        reason = f"{file.parent}: {file.name} cannot be written here ({error.strerror or error})"
        raise UserError(f"{reason}: free space, or name another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
