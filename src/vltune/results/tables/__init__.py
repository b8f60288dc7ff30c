"""A table: rows of methods, columns of scores and costs, every number from a record or from the published table.

`<name>.yaml` beside this file defines one; docs/results.md explains its keys.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from textwrap import shorten

from vltune.errors import UserError
from vltune.results import store
from vltune.results.record import flatten, read_json

METHODS = ("full", "classifier_only", "shallow_prompt", "deep_prompt", "lora", "adapter", "scaled_pa", "apt")
CONTROLS = ("question_only",)
"""Rows that are no tuning method: they say what a score is worth.  Last, and only where they were run."""

# Values of a configuration that say how a run was started, not what it is.
_NO_SETTING = {"force", "from", "mode", "results_dir", "seed", "sweep"}
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """One column.  `title` holds the unit; `value` is a record's dotted field, divided by `scale`."""

    key: str
    title: str
    experiment: str
    value: str | None = None
    value_for: dict[str, str] | None = None
    """{method: field}, where a method's value is another field than `value`."""
    mean_of: tuple[str, ...] = ()
    """Instead of `value`: the mean of these columns, where all of them have one."""
    scale: float = 1.0
    digits: int = 2
    published: str | None = None
    essential: bool = True
    """Whether it is shown where room is short: in a terminal and on a page (LaTeX)."""
    short: str | None = None
    """The heading there, where `title` is too long."""

    @property
    def is_score(self) -> bool:
        return bool(self.value) and self.value.startswith("metrics.")

    def field(self, method: str) -> str | None:
        return (self.value_for or {}).get(method, self.value)


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation (ddof=1) over `n` seeds, in the column's unit; None where there is none."""

    mean: float | None = None
    std: float | None = None
    n: int | None = 0
    published: float | None = None

    @property
    def difference(self) -> float | None:
        """Ours less the published number."""
        return None if self.mean is None or self.published is None else self.mean - self.published


@dataclass(frozen=True)
class Row:
    """One configuration of one method."""

    method: str
    label: str
    hashes: tuple[str, ...]
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Table:
    """What the renderers and the figure show."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    unfinished: tuple[str, ...]
    """One line for each failed, interrupted or running run: status, run, reason, file."""
    broken: tuple[str, ...]
    """One line for each file under the root that is no valid record."""
    figure: dict
    """{score: column key, against: [column key, column key]}."""

    def column(self, key: str) -> Column:
        return next(column for column in self.columns if column.key == key)


def names() -> list[str]:
    """The tables that can be built."""
    return sorted(file.stem for file in _HERE.glob("*.yaml"))


def build(name: str, root: Path) -> Table:
    """Table `name` of the records under `root`; published numbers come from `root/paper/`.

    Raises UserError for an unknown name, and where `root` is not a folder.
    """
    if name not in names():
        raise UserError(f"table {name!r} is not known: use one of {', '.join(names())}")
    import yaml

    definition = yaml.safe_load((_HERE / f"{name}.yaml").read_text())
    columns = tuple(Column(**{"experiment": definition["experiment"]} | column) for column in definition["columns"])
    experiments = {column.experiment for column in columns}
    broken: list[str] = []
    records = [
        record
        for record in store.load(root, on_broken=lambda error: broken.append(str(error).replace(f"{root}/", "")))
        if record["identity"]["backbone"] == definition["backbone"] and store.experiment(record) in experiments
    ]
    notes = []
    published = {}
    if definition.get("published"):
        file = Path(root) / "paper" / f"{definition['published']}.json"
        if file.exists():
            paper = read_json(file)
            published = paper["rows"]
            notes.append(f"Published numbers: {paper['source']}.")
        else:
            notes.append(f"Published numbers are left out: there is no paper/{file.name}.")
    rows = tuple(_rows([record for record in records if record["status"] == "finished"], columns, published))
    return Table(
        name=name,
        title=definition["title"],
        columns=columns,
        rows=rows,
        notes=(*notes, *_notes(definition.get("notes", ()), rows, columns)),
        unfinished=tuple(_unfinished(record) for record in records if record["status"] != "finished"),
        broken=tuple(broken),
        figure=definition["figure"],
    )


def _rows(records: list[dict], columns: tuple[Column, ...], published: dict) -> Iterator[Row]:
    by_method = defaultdict(list)
    for record in records:
        by_method[record["identity"]["method"]].append(record)
    others = sorted(by_method.keys() - {*METHODS, *CONTROLS})
    for method in (*METHODS, *others, *(control for control in CONTROLS if control in by_method)):
        variants = _variants(by_method[method])
        for variant, label in zip(variants, _labels(method, variants), strict=True):
            cells: dict[str, Cell] = {}
            for column in columns:
                cells[column.key] = _cell(column, method, variant, cells, published.get(method, {}))
            yield Row(method, label, _hashes(variant), cells)


def _variants(records: list[dict]) -> list[list[dict]]:
    """One method's records, one list per row: most seeds first, then by hash.  No records: one empty row.

    A row holds one hash per experiment.  Experiments meet in a row where the method's own settings (`config.method`)
    are equal and each has a single hash; otherwise which hash of one goes with which of another is anybody's guess, and
    every hash is a row.  What `mode=cost` measured, without data and so under another hash, joins the rows of the same
    method and backbone settings.
    """
    runs = [record for record in records if not store.is_cost(record)]
    variants = []
    for group in _grouped(runs, "method"):
        configurations = {(store.experiment(run), run["identity"]["hash"]) for run in group}
        if len(configurations) == len({experiment for experiment, _ in configurations}):
            variants.append(group)
        else:
            variants += [[run for run in group if run["identity"]["hash"] == hash_] for hash_ in _hashes(group)]
    variants.sort(key=lambda variant: (-len(variant), _hashes(variant)))
    for costs in _grouped([record for record in records if store.is_cost(record)], "method", "backbone"):
        settings = _settings(costs[0], "method", "backbone")
        same = [variant for variant in variants if settings == _settings(variant[0], "method", "backbone")]
        for variant in same:
            variant += costs
        if not same:
            variants.append(costs)
    return variants or [[]]


def _settings(record: dict, *groups: str) -> str:
    return json.dumps([record["config"].get(group) for group in groups], sort_keys=True)


def _grouped(records: Iterable[dict], *groups: str) -> Iterable[list[dict]]:
    """Records whose settings in these groups of the configuration are equal."""
    by_settings = defaultdict(list)
    for record in records:
        by_settings[_settings(record, *groups)].append(record)
    return by_settings.values()


def _hashes(records: Iterable[dict]) -> tuple[str, ...]:
    """Of the runs; of the costs where nothing was trained."""
    runs = [record for record in records if not store.is_cost(record)] or records
    return tuple(sorted({record["identity"]["hash"] for record in runs}))


def _labels(method: str, variants: list[list[dict]]) -> list[str]:
    """The method's name, and where it has several rows the settings in which they differ from the first."""
    if len(variants) == 1:
        return [method]
    configs = [flatten(variant[0]["config"]) for variant in variants]
    first = configs[0]
    changed = [
        {key for key in (first.keys() | config.keys()) - _NO_SETTING if first.get(key) != config.get(key)}
        for config in configs
    ]
    changed[0] = set().union(*changed)
    labels = []
    for variant, config, keys in zip(variants, configs, changed, strict=True):
        settings = ", ".join(f"{key}={config.get(key)}" for key in sorted(keys))
        labels.append(f"{method} ({settings if 0 < len(keys) <= 3 else '+'.join(_hashes(variant))})")
    return labels


def _cell(column: Column, method: str, records: list[dict], cells: dict[str, Cell], published: dict) -> Cell:
    paper = published.get(column.published)
    if column.mean_of:
        means = [cells[key].mean for key in column.mean_of]
        return Cell(published=paper) if None in means else Cell(mean(means), None, None, paper)
    field = column.field(method)
    found = [
        (store.is_cost(record), value / column.scale)
        for record in records
        if store.experiment(record) == column.experiment and (value := _value(record, field)) is not None
    ]
    # A training run's own cost goes before what `mode=cost` measured in a process of its own.
    values = [value for is_cost, value in found if not is_cost] or [value for _, value in found]
    if not values:
        return Cell(published=paper)
    return Cell(mean(values), stdev(values) if len(values) > 1 else None, len(values), paper)


def _value(record: dict, field: str) -> float | None:
    value = record
    for key in field.split("."):
        value = value.get(key) if value is not None else None
    return value


def _unfinished(record: dict) -> str:
    identity = record["identity"]
    lines = (record["error"] or "").strip().splitlines() or ["no reason recorded"]
    run = f"{identity['method']} {identity['hash']} on {store.experiment(record)}, seed {identity['seed']}"
    return f"{record['status']}: {run}: {shorten(lines[-1], 160)} ({record['path']})"


def _notes(notes: Iterable[str | dict], rows: tuple[Row, ...], columns: tuple[Column, ...]) -> Iterator[str]:
    """Plain notes, and those that a definition asks for where a row's number is not the published one.

    Such a note's `text` is filled with `label`, `published`, `ours`, `part` (the row's value in column `part`) and
    `rest` (`ours` less `part`), all from the table's own cells.
    """
    digits = {column.key: column.digits for column in columns}
    for note in notes:
        if isinstance(note, str):
            yield note
            continue
        for row in rows:
            cell, part = row.cells[note["column"]], row.cells[note["part"]].mean
            if row.method != note["method"] or cell.difference is None or part is None:
                continue
            if round(cell.difference, digits[note["column"]]):
                numbers = {"published": cell.published, "ours": cell.mean, "part": part, "rest": cell.mean - part}
                yield note["text"].format(label=row.label, **numbers)
