"""Predictions of all runs of a folder into one file: written, read back, and only then in the place of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vltune.atomic import replacing
from vltune.errors import UserError
from vltune.records import folders, packed, predictions
from vltune.records.files import is_there
from vltune.records.folders import OnBroken, RecordFile
from vltune.records.packed import PACK, Source
from vltune.records.predictions import PREDICTIONS
from vltune.records.record import read


@dataclass(frozen=True)
class Packed:
    """A folder of records.  runs: in its pack; before, after: bytes of what these runs' predictions lay and lie in;
    pictures: runs whose predictions name images beside the record, and stay as they are."""

    folder: Path
    runs: int
    before: int
    after: int
    pictures: int


@dataclass(frozen=True)
class _Own:
    """A run's own file of predictions, as it was read."""

    file: Path
    status: os.stat_result
    source: Source

    def remove(self) -> None:
        """Unless it is another one by now."""
        with suppress(FileNotFoundError):
            now = self.file.stat()
            if os.path.samestat(now, self.status) and now.st_mtime_ns == self.status.st_mtime_ns:
                self.file.unlink()


def pack(root: Path, on_broken: OnBroken) -> Iterator[Packed]:
    """Packs the predictions of the finished runs in each folder of records under `root`.

    To `on_broken` goes what cannot be packed, which stays as it is.  Raises UserError where `root` is no folder."""
    by_folder: dict[Path, list[RecordFile]] = {}
    for run in folders.find(root, on_broken, verified=lambda record: False):
        if run.finished and (is_there(run.beside(PREDICTIONS)) or is_there(run.file.with_name(PACK))):
            by_folder.setdefault(run.file.parent, []).append(run)
    for folder, runs in by_folder.items():
        try:
            with _alone(folder):
                done = _packed(folder, runs, on_broken)
        except UserError as error:
            on_broken(error)
        except ValueError as error:
            on_broken(UserError(f"{folder / PACK}: holds what no pack can ({error}): restore it"))
        except OSError as error:
            on_broken(UserError(f"{error.filename or folder}: cannot be packed ({error.strerror}): make it writable"))
        else:
            yield done


def _packed(folder: Path, runs: list[RecordFile], on_broken: OnBroken) -> Packed:
    """Raises UserError where the pack that is there cannot be read, or another not be written."""
    file = folder / PACK
    if named := [run.file for run in runs if run.beside(PREDICTIONS) == file]:
        raise UserError(f"{named[0]}: its predictions would have the name of a pack: rename the record")
    for left in folder.glob(f".{PACK}.*.tmp"):  # of killed processes
        left.unlink(missing_ok=True)
    before = {name: Source(run.read(), run.started) for name, run in packed.of_folder(folder).items()}
    size = file.stat().st_size if before else 0
    found, pictures = _found(runs, on_broken)
    kept = {name: run for name, run in before.items() if name not in found}
    joining = _fitting(found, kept, on_broken)
    if not joining:
        return Packed(folder, len(before), size, size, pictures)
    together = kept | {name: own.source for name, own in joining.items()}
    _write(file, together)
    for own in joining.values():
        own.remove()
        size += own.status.st_size
    return Packed(folder, len(together), size, file.stat().st_size, pictures)


def _found(runs: list[RecordFile], on_broken: OnBroken) -> tuple[dict[str, _Own], int]:
    """{name: its own file} of the runs that have one, and how many stay for the images that they name."""
    found, pictures = {}, 0
    for run in runs:
        file = run.beside(PREDICTIONS)
        if not is_there(file):
            continue
        try:
            if predictions.names_images(file):
                pictures += 1
            else:
                found[run.file.stem] = _own(run, file)
        except UserError as error:
            on_broken(error)
    return found, pictures


def _fitting(found: Mapping[str, _Own], kept: Mapping[str, Source], on_broken: OnBroken) -> dict[str, _Own]:
    """Of these files those that can be packed with each other, and with the runs that are."""
    types, fitting = packed.types((run.table for run in kept.values()), {}), {}
    for name, own in found.items():
        try:
            types = packed.types([own.source.table], types)
            fitting[name] = own
        except ValueError as error:
            on_broken(UserError(f"{own.file}: stays as it is, for a pack cannot hold it ({error})"))
    return fitting


def _own(run: RecordFile, file: Path) -> _Own:
    """Raises UserError where the file is broken or another run's."""
    status, table = file.stat(), predictions.whole(file, run.record)
    predictions.read(file, run.record)
    started = run.record["provenance"]["started"]
    if read(run.file)["provenance"]["started"] != started:
        raise UserError(f"{run.file}: was run anew meanwhile: pack again")
    return _Own(file, status, Source(table, started))


def _write(file: Path, runs: Mapping[str, Source]) -> None:
    """Raises UserError, and leaves what was there, where what was written is not what was to be."""
    with replacing(file) as temporary:
        packed.write(temporary, runs)
        found = packed.read(temporary)
        if odd := [name for name, run in runs.items() if not _is_back(found.get(name), run)]:
            raise UserError(
                f"{file}: {odd[0]} was not read back as it was, so that nothing is packed: look at the disk"
            )
    place = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(place)  # the new name before any file goes
    finally:
        os.close(place)


def _is_back(found: packed.PackedRun | None, run: Source) -> bool:
    return found is not None and found.started == run.started and packed.same(found.read(), run.table)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time packs a folder; one that is killed keeps nobody out."""
    file = folder / f".{PACK}.lock"
    try:
        while not (held := _lock(file)):
            pass
    except OSError as error:
        raise UserError(f"{file}: cannot be locked ({error.strerror}): make the folder writable") from None
    with held:
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _lock(file: Path) -> IO[bytes] | None:
    """None where another process that had it removed it meanwhile."""
    import fcntl

    held = file.open("wb")
    fcntl.flock(held, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(held.fileno()), file.stat()):
            return held
    held.close()
    return None
