"""Records from elsewhere into a folder of results: each to the place of its identity, none lost, none twice."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from vltune.atomic import replacing
from vltune.errors import UserError
from vltune.records import external, folders, predictions
from vltune.records.files import is_file, is_folder, is_same, is_there, told
from vltune.records.folders import TUNED, RecordFile
from vltune.records.predictions import FILES, PREDICTIONS
from vltune.records.record import read, started
from vltune.records.verified import check

Outcome = Literal["added", "same", "replaced", "refused", "broken"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
PREFER = ("newer", "theirs")


@dataclass(frozen=True)
class Merged:
    """What became of one file of a source.  `what`: its path under the folder merged into, or the source's, if broken."""

    outcome: Outcome
    what: str
    why: str = ""


def merge(
    sources: Sequence[Path], into: Path, prefer: str | None = None, dry_run: bool = False
) -> dict[Path, list[Merged]]:
    """Copies the records of `sources`, and what lies beside them, under `into`; {source: what became of its files}.
    Predictions that are packed there become a run's own file here.

    Of two records of one run a finished one stays, or takes the other's place; of two finished (or two unfinished) ones
    that under `into` stays, unless `prefer` is `theirs`, or `newer` and the source's started later.  What gives way goes to
    `into/replaced/`.  Of several records of one run in one source the finished one is taken, and of such that which lies at
    its place.  Raises UserError where a source is no folder, holds nothing or is `into` itself."""
    if prefer is not None and prefer not in PREFER:
        raise UserError(f"--prefer {prefer}: use one of {', '.join(PREFER)}, or leave it out to keep what is there")
    found = {source: _find(Path(source), Path(into)) for source in dict.fromkeys(sources)}
    merging = _Merging(Path(into), prefer, dry_run)
    return {
        source: [*broken, *merging.runs(runs), *map(merging.typed_scores, typed)]
        for source, (runs, typed, broken) in found.items()
    }


def _find(source: Path, into: Path) -> tuple[list[RecordFile], list[Path], list[Merged]]:
    """Its records, its files of typed scores, and what can be neither."""
    broken: list[Merged] = []

    def on_broken(error: UserError) -> None:
        broken.append(Merged("broken", str(error)))

    if is_same(source, into):
        raise UserError(f"{source}: is the folder that is merged into: name another")
    runs = [run for run in folders.find(source, on_broken) if not _is_in(run.file, into)]
    typed = external.files(source, on_broken)
    if not (runs or broken or typed):
        raise UserError(f"{source}: holds no records: give a folder of results, or one that holds records")
    return runs, typed, broken


def _is_in(file: Path, folder: Path) -> bool:
    """A folder that holds the one that is merged into holds its records too."""
    return folder.resolve() in file.parent.resolve().parents


class _Merging:
    """One merge.  `planned` holds what a dry run would have written."""

    def __init__(self, into: Path, prefer: str | None, dry_run: bool):
        self.into, self.prefer, self.dry_run = into, prefer, dry_run
        self.planned: dict[Path, RecordFile] = {}
        ours = [entry for file in external.files(into, lambda error: None) for entry in _typed(file).items()]
        self.typed = dict(ours)

    def runs(self, theirs: list[RecordFile]) -> Iterator[Merged]:
        """What becomes of one source's records."""
        by_home: dict[Path, list[RecordFile]] = {}
        for run in theirs:
            by_home.setdefault(run.home, []).append(run)
        for of_one in by_home.values():
            taken, *others = sorted(of_one, key=_rank, reverse=True)
            differ = [run for run in others if not _is_copy(run, taken)]
            what = taken.home.as_posix()
            if any(_rank(run) == _rank(taken) for run in differ):
                names = ", ".join(str(run.file) for run in of_one)
                yield Merged("refused", what, f"{names} are records of one run and differ: keep one of them")
                continue
            yield self.run(taken)
            for run in others:
                if run in differ:
                    yield Merged("refused", what, f"{run.file} is of the same run as {taken.file}, which is taken")
                else:
                    yield Merged("same", what, f"{run.file} is a copy of {taken.file}")

    def run(self, theirs: RecordFile) -> Merged:
        try:
            _check_beside(theirs)
            ours = self._ours(theirs)
            outcome, why = ("added", "") if ours is None else self._compare(ours, theirs)
        except UserError as error:
            return Merged("broken", str(error))
        if outcome in ("added", "replaced"):
            if self.dry_run:
                self.planned[theirs.home] = theirs
            else:
                self._put(theirs, ours if outcome == "replaced" else None)
        return Merged(outcome, theirs.home.as_posix(), why)

    def typed_scores(self, file: Path) -> Merged:
        """A file of scores that a person typed: copied where neither its name nor any of its scores is there."""
        target = self.into / "external" / file.name
        try:
            scores = _typed(file)
        except UserError as error:
            return Merged("broken", str(error))
        what = target.relative_to(self.into).as_posix()
        known = {key: self.typed[key] for key in scores if key in self.typed}
        if is_file(target) and filecmp.cmp(file, target, shallow=False):
            return Merged("same", what)
        if is_there(target):
            return Merged("refused", what, f"another file has this name: rename {file} or merge it by hand")
        if known:
            (run, metric), (value, where) = next(iter(known.items()))
            return Merged("refused", what, f"{metric} of {run} was typed before, {value} in {where}")
        self.typed |= scores
        if not self.dry_run:
            _copy(file, target)
        return Merged("added", what)

    def _ours(self, theirs: RecordFile) -> RecordFile | None:
        file = self.into / theirs.home
        if theirs.home in self.planned or not is_there(file):
            return self.planned.get(theirs.home)
        ours = RecordFile(file, theirs.kind, read(file))
        if ours.record != theirs.record:
            check(ours.record, file)
        return ours

    def _compare(self, ours: RecordFile, theirs: RecordFile) -> tuple[Outcome, str]:
        """What becomes of theirs, and why."""
        if ours.record == theirs.record:
            common = [suffix for suffix in _beside(ours) if suffix in _beside(theirs)]
            differ = [suffix for suffix in common if not _is_same(ours, theirs, suffix)]
            missing = [suffix for suffix in _beside(theirs) if suffix not in common]
            if not differ:
                return ("added", f"{_named(missing)} beside the same record") if missing else ("same", "")
            why = f"other {_named(differ)} beside the same record"
        else:
            why = "other content, {} here and {} there".format(*(run.record["status"] for run in (ours, theirs)))
        if ours.finished != theirs.finished:
            wins = theirs.finished
        elif self.prefer == "newer":
            here, there = started(ours.record), started(theirs.record)
            wins, why = there > here, f"{why}, started {here:%Y-%m-%d %H:%M:%S} and {there:%Y-%m-%d %H:%M:%S} UTC"
        else:
            wins = self.prefer == "theirs"
        return "replaced" if wins else "refused", why

    def _put(self, run: RecordFile, instead_of: RecordFile | None) -> None:
        """The record last: where it is, the rest is."""
        if instead_of is not None:
            folders.put_aside(instead_of, self.into)
        for suffix in (*_beside(run), run.file.suffix):
            copy = predictions.copy if suffix == PREDICTIONS and run.is_packed else _copy
            copy(run.beside(suffix), self.into / run.home.with_suffix(suffix))


def _copy(source: Path, target: Path) -> None:
    """A file, or a folder with all that is in it."""
    if is_folder(source):
        for file in _files(source):
            _copy(source / file, target / file)
        return
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _beside(run: RecordFile) -> list[str]:
    """The suffixes of what lies there: the folder of files before the predictions that name them."""
    predicted = [PREDICTIONS] if is_file(run.beside(PREDICTIONS)) or run.is_packed else []
    found = [*predicted, TUNED] if is_file(run.beside(TUNED)) else predicted
    return [FILES, *found] if is_folder(run.beside(FILES)) else found


def _named(suffixes: list[str]) -> str:
    return ", ".join(suffix or "files" for suffix in suffixes)


def _files(folder: Path) -> list[Path]:
    """Relative to it."""
    return sorted(file.relative_to(folder) for file in folder.rglob("*") if is_file(file))


def _is_same(run: RecordFile, other: RecordFile, suffix: str) -> bool:
    """Whether the same lies beside both.  Predictions may be packed, or written by another version."""
    here, there = run.beside(suffix), other.beside(suffix)
    if is_folder(here):
        files = _files(here)
        return files == _files(there) and all(filecmp.cmp(here / file, there / file, shallow=False) for file in files)
    if is_file(here) and is_file(there) and filecmp.cmp(here, there, shallow=False):
        return True
    return suffix == PREDICTIONS and predictions.are_same(here, there)


def _rank(run: RecordFile) -> tuple[bool, int]:
    """Of several records of one run in one source the highest is taken."""
    return run.finished, run.nearness


def _is_copy(run: RecordFile, other: RecordFile) -> bool:
    """Whether it holds nothing that the other does not."""
    return run.record == other.record and all(
        suffix in _beside(other) and _is_same(run, other, suffix) for suffix in _beside(run)
    )


def _check_beside(run: RecordFile) -> None:
    """UserError where a file beside the record is broken (a copy that was cut short) or another run's."""
    from safetensors import SafetensorError, safe_open

    if run.trouble:
        raise UserError(run.trouble)
    if TUNED in _beside(run):
        try:
            with safe_open(run.beside(TUNED), "numpy"):
                pass
        except (SafetensorError, OSError) as error:
            reason = told(run.beside(TUNED), error)
            raise UserError(f"{run.beside(TUNED)}: no file of parameters ({reason}): restore it or remove it") from None


def _typed(file: Path) -> dict[tuple[str, str], tuple[float, str]]:
    """{(run's name, metric): (value, where it stands)}"""
    found: dict[tuple[str, str], tuple[float, str]] = {}
    for where, entry in external.entries(file):
        key = PurePosixPath(entry["run"]).name.removesuffix(".json"), entry["metric"]
        if key in found:
            raise UserError(f"{where}: {key[1]} of {key[0]} was typed before, in {found[key][1]}: keep one")
        found[key] = entry["value"], where
    return found
