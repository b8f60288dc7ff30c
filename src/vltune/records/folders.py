"""Records in any folder: one of results, or one in which they lie in another order, such as a part of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path
from typing import get_args

from vltune.errors import UserError
from vltune.records import predictions
from vltune.records.files import check_folder, is_file, is_folder, is_same, is_there
from vltune.records.predictions import FILES, PREDICTIONS
from vltune.records.record import Kind, Record, path, read
from vltune.records.verified import check
from vltune.records.walk import json_files

TUNED = ".safetensors"
"""What may lie beside a record, under its name, and its predictions."""


@dataclass(frozen=True)
class RecordFile:
    """A valid record and where it was found; its place need not be the one of its identity."""

    file: Path
    kind: Kind
    record: Record
    trouble: str = ""
    """What is wrong with the predictions beside it."""

    @property
    def home(self) -> Path:
        """The place of its identity, relative to a folder of results."""
        return path(Path(), self.record["identity"], self.kind)

    @property
    def nearness(self) -> int:
        """How many of its names, the last first, are those of `home`: all of them where it lies there."""
        names = zip(reversed(self.file.parts), reversed(self.home.parts), strict=False)
        return len([*takewhile(lambda pair: pair[0] == pair[1], names)])

    @property
    def finished(self) -> bool:
        return self.record["status"] == "finished"

    @property
    def is_packed(self) -> bool:
        """Whether its predictions lie in a pack that can be read."""
        try:
            return predictions.is_packed(self.beside(PREDICTIONS), self.record)
        except UserError:
            return False

    def beside(self, suffix: str) -> Path:
        return self.file.with_suffix(suffix)


Verified = Callable[[dict], bool]
"""Of which records the predictions are looked at."""
OnBroken = Callable[[UserError], object]


def find(root: Path, on_broken: OnBroken, verified: Verified = lambda record: True) -> list[RecordFile]:
    """Every valid record under `root`, in the order of its files.  What is none goes to `on_broken`, and so does a record
    whose predictions give other scores.

    A folder with `records/` or `costs/` is one of results: nothing else in it is read.  Raises UserError where `root` is no
    folder."""
    root = Path(root)
    check_folder(root, "give one of results, or one that holds records")
    kinds = of_results(root, on_broken)
    return runs(root, [(root, None)] if kinds is None else kinds, on_broken, verified)


def of_results(root: Path, on_broken: OnBroken) -> list[tuple[Path, Kind]] | None:
    """Where a folder of results has records; None where it has neither `records/` nor `costs/`."""
    found = [(root / kind, kind) for kind in get_args(Kind) if is_there(root / kind)]
    for folder, _ in found:
        if not is_folder(folder):
            on_broken(UserError(f"{folder}: is no folder, or a link to none: mount or restore it, or move it away"))
    return [(folder, kind) for folder, kind in found if is_folder(folder)] if found else None


def apart(root: Path) -> list[Path]:
    """Folders in one of results that are folders of results themselves, as `learning_rates/` is: not read with it."""
    if not _has_records(root):
        return []
    try:
        return [folder for folder in sorted(root.iterdir()) if _has_records(folder)]
    except OSError:
        return []


def _has_records(folder: Path) -> bool:
    return any(is_folder(folder / kind) for kind in get_args(Kind))


def runs(
    root: Path,
    among: Iterable[tuple[Path, Kind | None]],
    on_broken: OnBroken,
    verified: Verified = lambda record: True,
) -> list[RecordFile]:
    """The records in these folders under `root`, each once."""
    found: dict[Path, RecordFile] = {}
    for folder, kind in among:
        for file in json_files(folder, on_broken):
            if is_file(Path(f"{file.parent}{file.suffix}")):
                continue  # among the files of the record of that name
            try:
                run = _read(root, file, kind, verified)
            except UserError as error:
                on_broken(error)
            else:
                found.setdefault(run.file, run)
    return list(found.values())


def _read(root: Path, file: Path, kind: Kind | None, verified: Verified) -> RecordFile:
    record = read(file)
    run = RecordFile(file, kind or _kind(file, record), record)
    if kind and is_same(root / run.home, file):  # a name that links gave it; this is the one that runs know
        run = replace(run, file=root / run.home)
    return replace(run, trouble=check(record, run.file)) if verified(record) else run


def put_aside(run: RecordFile, root: Path) -> Path:
    """Moves a record under `root`, and what lies beside it, to `root/replaced/`; returns its folder there.  Of predictions
    that are packed it gets a copy: those that stay in the pack are of a run that no record there is of any more.

    Raises UserError where that cannot be written."""
    when = re.sub(r"[^0-9A-Za-z+-]", "", run.record["provenance"]["started"])
    return _put(
        run.file, root / "replaced" / run.home.parent.relative_to(run.kind) / f"{run.file.stem}.{when}", run.is_packed
    )


def put_aside_unread(file: Path, root: Path) -> Path:
    """The same with a file that lies where a run's record belongs and cannot be read."""
    return _put(file, root / "replaced" / file.parent.relative_to(root / "records") / f"{file.stem}.unreadable", False)


def _put(record: Path, place: Path, packed: bool) -> Path:
    """packed: whether its predictions lie in a pack."""
    folder = next(folder for folder in _numbered(place) if not is_file(folder / record.name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in (FILES, PREDICTIONS, TUNED, record.suffix):  # the record last: nothing lies here without one
            if is_there(file := record.with_suffix(suffix)):
                file.replace(folder / file.name)
            elif suffix == PREDICTIONS and packed:
                predictions.copy(file, folder / file.name)
    except OSError as error:
        raise UserError(f"{folder}: {record.name} cannot be kept there ({error.strerror}): make it writable") from error
    return folder


def _numbered(place: Path) -> Iterator[Path]:
    yield place
    yield from (place.with_name(f"{place.name}.{number}") for number in count(2))


def _kind(file: Path, record: dict) -> Kind:
    """By its name: only what `mode=cost` measured has no seed there."""
    return "costs" if file.name == path(Path(), record["identity"], "costs").name else "records"
