"""The JSON files below a folder, whatever links lie in between; what could hold one and cannot be read is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from vltune.errors import UserError
from vltune.records.files import is_folder

SUFFIX = ".json"


def json_files(folder: Path, on_broken: Callable[[UserError], object]) -> list[Path]:
    """Every `*.json` below `folder`, in order.  A folder or file that several links lead to is there once, by its own name
    where that is below `folder` too; a link to what holds `folder` leads nowhere.

    To `on_broken` go folders that cannot be listed, links to nothing, and files such as `x.JSON` or `x.json.gz`."""
    files, linked = [], []
    seen = {key for parent in folder.resolve().parents if (key := _key(parent))}
    folders, links = [folder], []
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        if (key := _key(here)) in seen:
            continue
        seen.add(key)
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            on_broken(UserError(f"{here}: cannot be listed ({error.strerror}): make it readable"))
            continue
        for entry in entries:
            path, link = Path(entry.path), entry.is_symlink()
            if entry.name.endswith(SUFFIX):
                (linked if link else files).append(path)
            elif is_folder(path):
                (links if link else folders).append(path)
            elif told := _told(path, link):
                on_broken(UserError(f"{path}: {told}"))
    once: dict[object, Path] = {}
    for file in (*sorted(files), *sorted(linked)):
        once.setdefault(_key(file) or file, file)
    return sorted(once.values())


def _told(path: Path, link: bool) -> str:
    """What is wrong with a file that is not read; nothing of one that need not be."""
    if link and _key(path) is None:
        return "a link to what is not there: mount or restore that, or remove the link"
    if SUFFIX in path.name.lower() and not path.name.startswith("."):  # such a one is half written
        return f"not read, for its name does not end in {SUFFIX}: rename or unpack it, or move it away"
    return ""


def _key(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from all others, by whichever name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
