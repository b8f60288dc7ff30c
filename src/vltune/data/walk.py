"""What lies below a folder, links to folders followed, and what it may be called."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


def check_name(path: Path) -> None:
    """UserError where a name is no text, as one in another encoding than the system's is not: no data set can hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{printable(str(path))}: its name is not in UTF-8; rename it") from None
