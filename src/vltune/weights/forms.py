"""What kind of checkpoint a file is, told by its content: names and suffixes mislead.  Nothing of it is run."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from vltune.errors import UserError
from vltune.signatures import HEAD, identify

SAFETENSORS, TORCHSCRIPT = "safetensors", "TorchScript"
PICKLE, OLD_PICKLE = "PyTorch pickle", "PyTorch pickle of before 1.6"
LONGEST_HEADER = 100_000_000  # bytes, of the safetensors format
PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # as pickles begin
CONSTANTS = "/constants.pkl"  # the one entry that a TorchScript archive has beside those of a checkpoint


def form(path: Path) -> str:
    """One of the four above.  UserError that says what the file is, where it is none of them or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        if is_safetensors(head):
            return SAFETENSORS
        if head.startswith(b"PK\x03\x04"):
            return of_archive(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if head[:2] in PROTOCOLS:
        return OLD_PICKLE
    raise no_checkpoint(path, head)


def is_safetensors(head: bytes) -> bool:
    """Its header's length in eight bytes, and then the header, a JSON object."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def of_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # ValueError: names that are no text
        told = "a truncated or damaged PyTorch checkpoint or zip archive"
        raise UserError(f"{path}: {told}; copy or download it again") from None
    if any(name.endswith(CONSTANTS) for name in names):
        return TORCHSCRIPT
    if any(name.endswith("/data.pkl") for name in names):
        return PICKLE
    raise no_checkpoint(path, b"PK\x03\x04")


def plain(name: object, longest: int = 60) -> str:
    """What a file calls something, as it can stand in a message of one line, whatever it is made of."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def first_line(error: Exception) -> str:
    """Of an error's message, without Python's literals of bytes."""
    text = next(iter(str(error).splitlines()), "")
    if " " not in text:  # a KeyError says its key and no more
        text = f"{type(error).__name__} {text}".strip()
    return plain(re.sub(r"""b'[^']*'|b"[^"]*\"""", "...", text), 200)


def no_checkpoint(path: Path, head: bytes) -> UserError:
    name, fix = identify(head)
    return UserError(f"{path}: no checkpoint but {name}" + (f"; {fix}" if fix else "; name another file"))
