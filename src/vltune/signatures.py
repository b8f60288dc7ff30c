"""What a file is by its first bytes, in words, for messages about one that is not what it ought to be."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import NamedTuple

HEAD = 512  # bytes that tell
_SHOWN = 24  # characters of a text's beginning


class Signature(NamedTuple):
    """name: such as `a gzip archive`.  fix: what a person does about it; empty where nothing general can be said."""

    name: str
    fix: str = ""


EMPTY = Signature("an empty file", "download or copy it again")
_PAGE = Signature(
    "a web page, not the file itself", "download it again: the server answered with a page, perhaps a login"
)
_TAR = Signature("a tar archive", "unpack it (tar -xf)")
# The first that fits counts.
_SIGNATURES: tuple[tuple[bytes, Signature], ...] = (
    (
        rb"version https://git-lfs",
        Signature("a Git LFS pointer, not the data itself", "run `git lfs pull` in its repository"),
    ),
    (rb"\x1f\x8b", Signature("a gzip archive", "unpack it (gunzip, or tar -xzf)")),
    (rb"PK\x03\x04", Signature("a zip archive", "unpack it (unzip)")),
    (rb"BZh[1-9]", Signature("a bzip2 archive", "unpack it (bunzip2, or tar -xjf)")),
    (rb"\xfd7zXZ\0", Signature("an xz archive", "unpack it (unxz, or tar -xJf)")),
    (rb"\x28\xb5\x2f\xfd", Signature("a zstd archive", "unpack it (unzstd)")),
    (rb"7z\xbc\xaf\x27\x1c", Signature("a 7-Zip archive", "unpack it (7z x)")),
    (rb"Rar!", Signature("a RAR archive", "unpack it (unrar x)")),
    (rb".{257}ustar", _TAR),
    (rb"\s*(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml)", _PAGE),
    (rb"ARROW1", Signature("an Arrow file")),
    (rb"\xff\xff\xff\xff", Signature("an Arrow stream, not an Arrow file")),
    (rb"FEA1", Signature("a Feather version 1 file")),
    (rb"PAR1", Signature("a Parquet file")),
    (rb"\x89HDF", Signature("an HDF5 file")),
    (rb"\x93NUMPY", Signature("a NumPy file")),
    (rb"SQLite format 3", Signature("an SQLite database")),
    (rb"\x80[\x02-\x05]", Signature("a Python pickle")),
    (rb"\xff\xd8\xff", Signature("a JPEG image")),
    (rb"\x89PNG", Signature("a PNG image")),
    (rb"GIF8", Signature("a GIF image")),
    (rb"RIFF.{4}WEBP", Signature("a WebP image")),
    (rb"(II\*\0|MM\0\*)", Signature("a TIFF image")),
    (rb"BM.{4}\0\0\0\0", Signature("a BMP image")),
    (rb"(%!PS|\xc5\xd0\xd3\xc6)", Signature("a PostScript file")),
    (rb"%PDF", Signature("a PDF document")),
    (rb".{4}ftyp", Signature("an MP4, HEIC or AVIF file")),
    (rb"(\xff\xfe|\xfe\xff)", Signature("a text in UTF-16", "save it as UTF-8")),
)
_PATTERNS = tuple((re.compile(pattern, re.DOTALL | re.IGNORECASE), found) for pattern, found in _SIGNATURES)


def identify(head: bytes) -> Signature:
    """head: the first `HEAD` bytes of a file, or all that it has."""
    if not head:
        return EMPTY
    if known := next((found for pattern, found in _PATTERNS if pattern.match(head)), None):
        return known
    if not head.strip(b"\0"):
        return Signature("a file of zeros", "copy or download it again")
    text = " ".join(head.decode("utf-8-sig", "replace").split())
    if "\ufffd" in text[:-4] or any(not character.isprintable() for character in text):
        return Signature(f"a binary file that begins with {head[:8].hex(' ')}")
    return Signature(f"a text that begins with {text[:_SHOWN]}")


def identify_file(path: Path) -> Signature:
    """Raises OSError where the file cannot be read."""
    with path.open("rb") as file:
        return identify(file.read(HEAD))


def other_than_file(path: Path) -> str | None:
    """What stands at a path in the place of a file, such as `a folder` or `no such file`; None where a file is there.

    OSError where the system does not tell."""
    try:
        return kind_of_place(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return "a link to nothing" if path.is_symlink() else "no such file"


def kind_of_place(mode: int) -> str | None:
    """The same by what `stat` says, links followed."""
    return None if stat.S_ISREG(mode) else next((name for of, name in _PLACES if of(mode)), "no file")


_PLACES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
