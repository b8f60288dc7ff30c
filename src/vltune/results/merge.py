"""Records from elsewhere into a folder of results: each to the place of its identity, none lost, none twice."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from vltune.atomic import replacing
from vltune.errors import UserError
from vltune.results import external, folders, predictions
from vltune.results.folders import PREDICTIONS, TUNED, Run
from vltune.results.record import read

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

    Of two records of one run a finished one stays, or takes the other's place; of two finished (or two unfinished) ones
    that under `into` stays, unless `prefer` is `theirs`, or `newer` and the source's started later.  What gives way goes to
    `into/replaced/`.  Raises UserError where a source is no folder, holds nothing or is `into` itself."""
    if prefer is not None and prefer not in PREFER:
        raise UserError(f"--prefer {prefer}: use one of {', '.join(PREFER)}, or leave it out to keep what is there")
    merging = _Merging(Path(into), prefer, dry_run)
    found = {source: _find(Path(source), Path(into)) for source in dict.fromkeys(sources)}
    return {
        source: [*broken, *map(merging.run, runs), *map(merging.typed_scores, external.files(source))]
        for source, (runs, broken) in found.items()
    }


def _find(source: Path, into: Path) -> tuple[list[Run], list[Merged]]:
    broken: list[Merged] = []
    if source.resolve() == into.resolve():
        raise UserError(f"{source}: is the folder that is merged into: name another")
    runs = folders.find(source, lambda error: broken.append(Merged("broken", str(error))))
    if not (runs or broken or external.files(source)):
        raise UserError(f"{source}: holds no records: give a folder of results, or one that holds records")
    return runs, broken


class _Merging:
    """One merge.  `planned` holds what a dry run would have written."""

    def __init__(self, into: Path, prefer: str | None, dry_run: bool):
        self.into, self.prefer, self.dry_run = into, prefer, dry_run
        self.planned: dict[Path, Run] = {}
        self.typed = {key: value for file in external.files(into) for key, value in _typed(file).items()}

    def run(self, theirs: Run) -> Merged:
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
        if target.is_file() and filecmp.cmp(file, target, shallow=False):
            return Merged("same", what)
        if target.exists():
            return Merged("refused", what, f"another file has this name: rename {file} or merge it by hand")
        if known:
            (run, metric), (value, where) = next(iter(known.items()))
            return Merged("refused", what, f"{metric} of {run} was typed before, {value} in {where}")
        self.typed |= scores
        if not self.dry_run:
            _copy(file, target)
        return Merged("added", what)

    def _ours(self, theirs: Run) -> Run | None:
        file = self.into / theirs.home
        if theirs.home in self.planned or not file.exists():
            return self.planned.get(theirs.home)
        return Run(file, theirs.kind, read(file))

    def _compare(self, ours: Run, theirs: Run) -> tuple[Outcome, str]:
        """What becomes of theirs, and why."""
        if ours.record == theirs.record:
            common = [suffix for suffix in _beside(ours) if suffix in _beside(theirs)]
            differ = [s for s in common if not filecmp.cmp(ours.beside(s), theirs.beside(s), shallow=False)]
            missing = [suffix for suffix in _beside(theirs) if suffix not in common]
            if not differ:
                return ("added", f"{', '.join(missing)} beside the same record") if missing else ("same", "")
            why = f"other {', '.join(differ)} beside the same record"
        else:
            why = "other content, {} here and {} there".format(*(run.record["status"] for run in (ours, theirs)))
        if ours.finished != theirs.finished:
            wins = theirs.finished
        elif self.prefer == "newer":
            here, there = _started(ours), _started(theirs)
            wins, why = there > here, f"{why}, started {here:%Y-%m-%d %H:%M:%S} and {there:%Y-%m-%d %H:%M:%S} UTC"
        else:
            wins = self.prefer == "theirs"
        return "replaced" if wins else "refused", why

    def _put(self, run: Run, instead_of: Run | None) -> None:
        """The record last: where it is, the rest is."""
        if instead_of is not None:
            folders.put_aside(instead_of, self.into)
        for suffix in (*_beside(run), run.file.suffix):
            _copy(run.beside(suffix), self.into / run.home.with_suffix(suffix))


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _beside(run: Run) -> list[str]:
    return [suffix for suffix in (PREDICTIONS, TUNED) if run.beside(suffix).is_file()]


def _check_beside(run: Run) -> None:
    """UserError where a file beside the record is broken (a copy that was cut short) or another run's."""
    from safetensors import SafetensorError, safe_open

    if PREDICTIONS in (beside := _beside(run)):
        identity = {key: str(value) for key, value in run.record["identity"].items()}
        named = predictions.owner(run.beside(PREDICTIONS))
        if differ := sorted(key for key in identity.keys() & named.keys() if identity[key] != named[key]):
            told = ", ".join(f"{key} {named[key]}" for key in differ)
            raise UserError(f"{run.beside(PREDICTIONS)}: predictions of another run ({told}): restore the record's own")
    if TUNED in beside:
        try:
            with safe_open(run.beside(TUNED), "numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{run.beside(TUNED)}: no file of parameters ({error}): restore it or remove it") from None


def _started(run: Run) -> datetime:
    text = run.record["provenance"]["started"]
    try:
        # Python 3.10 does not read the Z of UTC.
        started = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise UserError(f"{run.file}: field 'provenance.started' is {text!r}, no time: correct it") from None
    return started.astimezone(timezone.utc) if started.tzinfo else started.replace(tzinfo=timezone.utc)


def _typed(file: Path) -> dict[tuple[str, str], tuple[float, str]]:
    """{(run's name, metric): (value, where it stands)}"""
    return {
        (PurePosixPath(entry["run"]).stem, entry["metric"]): (entry["value"], where)
        for where, entry in external.entries(file)
    }
