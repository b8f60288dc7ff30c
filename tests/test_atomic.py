"""Reading a file that another machine may be replacing."""

import errno
import os
from pathlib import Path

import pytest

from vltune import atomic


def stale(times):
    """A file system that so often knows the file by the name of the one that it replaced."""
    left = [None] * times
    opened = Path.open

    def open_(self, *arguments, **more):
        if left:
            left.pop()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return opened(self, *arguments, **more)

    return open_


def test_a_replaced_file_is_looked_at_again(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"new")
    monkeypatch.setattr(atomic, "PATIENCE", (0, 0))
    monkeypatch.setattr(Path, "open", stale(2))
    assert atomic.read_whole(file) == (b"new", file.stat().st_mtime)
    monkeypatch.setattr(Path, "open", stale(3))
    with pytest.raises(OSError, match="Stale file handle"):
        atomic.read_whole(file)


def test_a_file_that_is_not_there_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "PATIENCE", (600,))
    with pytest.raises(FileNotFoundError):
        atomic.read_whole(tmp_path / "absent")
