"""The standard streams of a command: characters that a terminal lacks, readers that leave, a disk that is full.

A run is worth more than what it prints, so nothing that befalls a stream ends it.
"""

from __future__ import annotations

import errno
import io
import os
import sys

LEFT = (errno.EPIPE, errno.EIO, errno.EBADF)  # nobody reads any more: a closed pipe, a terminal that is gone
STREAMS = {"stdout": "replace", "stderr": "backslashreplace"}  # and what becomes of characters that one cannot show


class Output(io.FileIO):
    """Writes as long as that can be done; after that what is written goes nowhere.  lost: why."""

    lost: OSError | None = None

    def write(self, data) -> int | None:
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes


def open_streams() -> None:
    """Puts streams in the place of this process's own that never raise."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: else the next file that is opened would take its number, and what is printed
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0)
    for descriptor, (name, errors) in enumerate(STREAMS.items(), start=1):
        before = getattr(sys, name)
        raw = Output(descriptor, "w", closefd=False)
        shown = raw.isatty() or name == "stderr"
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=before.encoding if before else "utf-8",
            errors=errors,
            line_buffering=shown,
            write_through=bool(before and before.write_through),
        )
        setattr(sys, name, stream)


def what_was_lost() -> str | None:
    """Why something that was to be read did not get out; None where it did, or where nobody reads."""
    for name in STREAMS:
        getattr(sys, name).flush()
    lost = getattr(getattr(sys.stdout.buffer, "raw", None), "lost", None)
    return None if lost is None or lost.errno in LEFT else f"standard output: {lost.strerror}"
