"""Records in any folder: one of results, or one in which they lie in another order, such as a part of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import get_args

from vltune.errors import UserError
from vltune.results.record import Kind, path, read

PREDICTIONS, TUNED = ".parquet", ".safetensors"
"""What may lie beside a record, under its name."""


@dataclass(frozen=True)
class Run:
    """A valid record and where it was found; its place need not be the one of its identity."""

    file: Path
    kind: Kind
    record: dict

    @property
    def home(self) -> Path:
        """The place of its identity, relative to a folder of results."""
        return path(Path(), self.record["identity"], self.kind)

    @property
    def finished(self) -> bool:
        return self.record["status"] == "finished"

    def beside(self, suffix: str) -> Path:
        return self.file.with_suffix(suffix)


def find(root: Path, on_broken: Callable[[UserError], object]) -> list[Run]:
    """Every valid record under `root`, in the order of its files.  What is none goes to `on_broken`.

    A folder with `records/` or `costs/` is one of results: nothing else in it is read.  Raises UserError where `root` is no
    folder."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder: give one of results, or one that holds records")
    runs = []
    for file, kind in _files(root):
        try:
            record = read(file)
        except UserError as error:
            on_broken(error)
        else:
            runs.append(Run(file, kind or _kind(file, record), record))
    return runs


def put_aside(run: Run, root: Path) -> Path:
    """Moves a record under `root`, and what lies beside it, to `root/replaced/`; returns its folder there.

    Raises UserError where that cannot be written."""
    started = re.sub(r"[^0-9A-Za-z+-]", "", run.record["provenance"]["started"])
    place = root / "replaced" / run.home.parent.relative_to(run.kind) / f"{run.file.stem}.{started}"
    folder = next(folder for folder in _numbered(place) if not (folder / run.file.name).exists())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in (PREDICTIONS, TUNED, run.file.suffix):  # the record last: nothing lies here without one
            if (file := run.file.with_suffix(suffix)).exists():
                file.replace(folder / file.name)
    except OSError as error:
        raise UserError(
            f"{folder}: {run.file.name} cannot be kept there ({error.strerror}): make it writable"
        ) from error
    return folder


def _numbered(place: Path) -> Iterator[Path]:
    yield place
    yield from (place.with_name(f"{place.name}.{number}") for number in count(2))


def _files(root: Path) -> Iterator[tuple[Path, Kind | None]]:
    kinds = [kind for kind in get_args(Kind) if (root / kind).is_dir()]
    for folder, kind in [(root / kind, kind) for kind in kinds] or [(root, None)]:
        for file in sorted(folder.rglob("*.json")):
            yield file, kind


def _kind(file: Path, record: dict) -> Kind:
    """By its name: only what `mode=cost` measured has no seed there."""
    return "costs" if file.name == path(Path(), record["identity"], "costs").name else "records"
