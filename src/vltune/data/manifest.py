"""`manifest.json`: what a prepared folder says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from vltune.errors import UserError

MANIFEST = "manifest.json"
_NOT_CONTENT = ("version", "splits", "source_bytes")


def read(folder: Path) -> dict[str, Any] | None:
    """None where the folder has none.  UserError where it is broken or cannot be read."""
    path = Path(folder) / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); run `vltune prepare` again") from None


@dataclass(frozen=True)
class Split:
    """Where a split lies.  rows: of each file, as the manifest says, else None.  texts: the numbers, among all texts of the
    files, of those that belong to it, ascending; None: all."""

    files: list[Path]
    rows: list[int | None]
    texts: list[int] | None = None


def find(folder: Path, manifest: dict[str, Any] | None, name: str) -> Split:
    """A split by its name: the shards that the manifest lists, those of a subset's whole, or `{name}.arrow`.

    UserError, with the names that there are, where the manifest has no such name and the folder no such file."""
    listed, subsets = ((manifest or {}).get(key, {}) for key in ("splits", "subsets"))
    if name in subsets:
        whole = find(folder, manifest, subsets[name]["of"])
        return Split(whole.files, whole.rows, sorted(subsets[name]["texts"]))
    if name in listed:
        return Split([folder / shard["file"] for shard in listed[name]], [shard["rows"] for shard in listed[name]])
    file = folder / f"{name}.arrow"
    if manifest and not file.exists():
        raise UserError(
            f"{folder}: has no split {name}; {MANIFEST} lists {', '.join([*listed, *subsets]) or 'none'}: choose of these "
            "with dataset.train, dataset.val and dataset.test"
        )
    return Split([file], [None])


def fingerprint(manifest: dict[str, Any]) -> str:
    """SHA-256 of what the folder was made of, hexadecimal; the same on every machine."""
    return _digest({key: value for key, value in manifest.items() if key not in _NOT_CONTENT})


def fingerprint_of_files(paths: Iterable[Path]) -> str:
    """Where there is no manifest: of names and sizes."""
    return _digest({path.name: path.stat().st_size for path in paths})


def _digest(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
