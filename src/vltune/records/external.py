"""Scores that a person typed, `root/external/*.yaml`: what only an official server can compute.

A file holds one entry or a list of them, read as YAML 1.2; docs/answers.md shows one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vltune import signatures
from vltune.errors import UserError
from vltune.records import store
from vltune.records.files import content as read
from vltune.records.files import is_there
from vltune.records.folders import OnBroken
from vltune.records.record import flatten

SUFFIXES = (".yaml", ".yml")
FIELDS = ("run", "metric", "value", "source", "by")


@dataclass(frozen=True)
class Typable:
    """A score that a person may type: of which task and data set (`store.experiment`), and the record's dotted field."""

    experiment: str
    field: str


@dataclass(frozen=True)
class Typed:
    value: float
    """In percent."""
    source: str
    by: str
    where: str
    """The file, and its entry where it holds several."""


def load(
    root: Path, records: list[dict], metrics: Mapping[str, Typable], on_broken: OnBroken
) -> dict[str, dict[str, Typed]]:
    """{path of a record: {name of a metric: what was typed}}, of all files under `root/external/`.

    records: as `store.load` gives them.  metrics: those that may be typed, by name.  on_broken: as of `files`.  Raises
    UserError that names the file and the entry where it is none, where its run is unknown, unfinished or of something else,
    or has a score already."""
    typed: dict[str, dict[str, Typed]] = defaultdict(dict)
    runs = [record for record in records if not store.is_cost(record)]
    for where, entry in (found for file in files(root, on_broken) for found in entries(file)):
        record, metric = _find(where, entry["run"], runs, root), entry["metric"]
        _check_metric(where, metric, record, metrics)
        if before := typed[record["path"]].get(metric):
            raise UserError(f"{where}: {metric} of {entry['run']} was typed before, in {before.where}: keep one")
        typed[record["path"]][metric] = Typed(
            float(entry["value"]), entry["source"].strip(), entry["by"].strip(), where
        )
    return typed


def files(root: Path, on_broken: OnBroken) -> list[Path]:
    """The YAML files under `root/external/`; what else lies there, hidden files left out, goes to `on_broken`."""
    folder = Path(root) / "external"
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        if is_there(folder):
            on_broken(UserError(f"{folder}: cannot be listed ({error.strerror}): make it a folder that can be read"))
        return []
    named = [path for path in found if path.suffix.lower() in SUFFIXES]
    for path in found:
        if path not in named:
            on_broken(UserError(f"{path}: not read, for its name does not end in .yaml: rename it, or move it away"))
    return named


def entries(file: Path) -> Iterator[tuple[str, dict]]:
    """Every entry and where it stands.  Raises UserError where there is none, and where one has another form."""
    content = _content(file)
    many = isinstance(content, list)
    if content is None or content == []:
        raise UserError(f"{file}: holds no entry: write one, or remove the file")
    for number, entry in enumerate(content if many else [content], 1):
        where = f"{file} entry {number}" if many else str(file)
        _check(where, entry)
        yield where, entry


def _content(file: Path) -> Any:
    import yaml

    from vltune.records import strict_yaml

    content = read(file, "YAML")
    try:
        return strict_yaml.load(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        found = signatures.identify(content[: signatures.HEAD])
        told = f"{found.name}, no YAML: {found.fix}" if found.fix else "not in UTF-8: save it as that"
        raise UserError(f"{file}: {told}") from None
    except yaml.YAMLError as error:
        told = " ".join(str(error).split()).replace(' in "<unicode string>"', "")
        raise UserError(f"{file}: broken YAML ({told}): correct it") from None


def _check(where: str, entry: Any) -> None:
    """The form of an entry."""
    if not isinstance(entry, dict) or set(entry) != set(FIELDS):
        found = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)
        raise UserError(f"{where}: an entry holds {', '.join(FIELDS)} and nothing else; this one holds {found}")
    for field in ("run", "metric", "source", "by"):
        if not isinstance(entry[field], str) or not entry[field].strip() or not _is_text(entry[field]):
            raise UserError(f"{where}: {field} is {entry[field]!r}: write a text")
    value = entry["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise UserError(f"{where}: value is {value!r}: write a number of percent, from 0 to 100")


def _is_text(value: str) -> bool:
    """Whether it can be written: YAML lets halves of characters be typed."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _find(where: str, run: str, records: list[dict], root: Path) -> dict:
    """The record that an id or a path names."""
    found = [
        record
        for record in records
        if run in (PurePosixPath(record["path"]).stem, record["path"], (Path(root) / record["path"]).as_posix())
    ]
    if not found:
        raise UserError(f"{where}: run is {run!r}, and no record under {root} has this name or path: correct it")
    if len(found) > 1:
        paths = ", ".join(record["path"] for record in found)
        raise UserError(f"{where}: run is {run!r}, which several have: write one of {paths}")
    if found[0]["status"] != "finished":
        raise UserError(f"{where}: run {run!r} is {found[0]['status']}: only a finished run has a score")
    return found[0]


def _check_metric(where: str, name: str, record: dict, metrics: Mapping[str, Typable]) -> None:
    """Whether a person may type this metric of this run."""
    if name not in metrics:
        raise UserError(f"{where}: metric is {name!r}, which no table shows: use {', '.join(sorted(metrics))}")
    typable, mine = metrics[name], store.experiment(record)
    if mine != typable.experiment:
        raise UserError(f"{where}: metric {name!r} is of {typable.experiment}, and the run is of {mine}: correct one")
    if (computed := flatten(record).get(typable.field)) is not None:
        raise UserError(
            f"{where}: the run's record holds a computed {typable.field}, {computed:.2f}: remove this entry"
        )
