"""Reading a file that another machine may be replacing."""

import errno
import os
from pathlib import Path

import pytest

from vltune import atomic
from vltune.errors import UserError


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


def test_what_is_no_file_keeps_its_place(tmp_path):
    """A device's or a pipe's name would be the file's, and for good."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "pipe", tmp_path / "folder", Path("/dev/null"), Path(), Path("/")):
        with (
            pytest.raises(UserError, match="is no file, and nothing takes its place; name a file"),
            atomic.replacing(place),
        ):
            pytest.fail("nothing is to be written")
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "link").symlink_to("there/file")
    with atomic.replacing(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new"
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["/proc/x/file", "/proc/file", "HERE/file/file", f"HERE/{'x' * 250}"])
def test_a_place_where_nothing_can_be_written_is_told(tmp_path, place):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"cannot be written here \(.*\): free space, or name another folder"),
        atomic.replacing(Path(place.replace("HERE", str(tmp_path)))) as temporary,
    ):
        temporary.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_an_error_keeps_open_takes_no_space(tmp_path):
    """On a full disk the record of the failure needs the space that the writer of the checkpoint held."""
    with pytest.raises(UserError, match="No space left"), atomic.replacing(tmp_path / "file") as temporary:
        writer = temporary.open("wb", buffering=0)
        writer.write(b"x" * 100)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.fstat(writer.fileno()).st_size == 0
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_reserve_is_there_as_long_as_it_lasts(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic.reserve(tmp_path / "folder" / "room"):
        assert (tmp_path / "folder" / "room").stat().st_blocks * 512 >= atomic.ROOM
        raise ZeroDivisionError
    assert list((tmp_path / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    with atomic.reserve(tmp_path / "file" / "room"):  # where nothing can be written the reserve is not what says so
        pass
