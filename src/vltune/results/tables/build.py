"""A table: rows of methods, columns of scores and costs, every number from a record or from the published table.

A YAML file beside this one defines tables of the same columns, one for each backbone; docs/results.md explains its keys,
docs/statistics.md what the marks at scores mean.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from textwrap import shorten

from vltune.catalogue import families
from vltune.errors import UserError
from vltune.metrics.metric import PERCENT, Metric, declared
from vltune.records import external, store
from vltune.records.files import is_folder, is_there
from vltune.records.folders import Verified
from vltune.results.tables import cautions, cells, marks, missing, notes, published
from vltune.results.tables.definitions import columns_of, groups
from vltune.results.tables.model import (
    ALIKE,
    MIXED,
    SAME,
    SEEDS,
    TYPED,
    UNTESTED,
    Cell,
    Column,
    ListedRows,
    Table,
    TableRow,
)
from vltune.results.tables.presentations import NONE, Methods, presentations
from vltune.results.tables.rows import MethodVariant, hashes, variants

__all__ = [
    "ALIKE",
    "MIXED",
    "SAME",
    "TYPED",
    "UNTESTED",
    "Cell",
    "Column",
    "Table",
    "TableRow",
    "build",
    "columns",
    "expand",
    "groups",
    "names",
]


def names() -> list[str]:
    """The tables that can be built."""
    return [name for group in groups().values() for name in group.get("tables", ())]


def listed(name: str, methods: Methods) -> ListedRows:
    """The rows that table `name` has at least."""
    rows = ListedRows(**_group(name).get("rows", {}))
    return rows if rows.values else replace(rows, values=families(methods).get(rows.family, ()))


def expand(name: str) -> list[str]:
    """The tables that `name` means: itself, those of its file, or those that its file lists.  Raises UserError for an
    unknown name."""
    known = groups()
    if name not in {*known, *names()}:
        raise UserError(f"table {name!r} is not known: use one of {', '.join(sorted({*known, *names()}))}")
    if name not in known:
        return [name]
    found = known[name]
    return (
        list(found["tables"]) if "tables" in found else [each for other in found["reports"] for each in expand(other)]
    )


def build(name: str, root: Path, methods: Methods = NONE) -> Table:
    """Table `name` (one of `names()`) of the records under `root`, or under the folder in it that the definition names;
    published numbers come from `root/paper/`, marks from the predictions beside the records, the number of trials from
    `root/learning_rates/`.

    methods: which there are, with their presentation (`vltune.catalogue`); those of the definition's family have a row
    each.  Raises UserError where `root` is not a folder, and where a published number or a score that a person typed is
    none."""
    group = _group(name)
    definition = group["tables"][name]
    backbone, columns, at_least = definition.get("backbone", name), columns_of(group), listed(name, methods)
    within = Path(root) / group.get("folder", "")
    told = _Told(within)
    columns, loaded, records = _declaring(columns, *_records(backbone, columns, at_least, Path(root), told), told)
    numbers, source = published.of(name, columns, root)
    finished, not_finished = _apart(records, lambda record: record["status"] == "finished")
    aside = {
        key: [record for record in finished if _has(record, fields)]
        for key, fields in definition.get("aside", {}).items()
    }
    set_aside = [record for chosen in aside.values() for record in chosen]
    in_rows = [record for record in finished if not (store.is_cost(record) and record in set_aside)]
    found = list(variants(in_rows, at_least, presentations(methods, records)))
    searched = cautions.searches(root, backbone, told)
    rows = [
        TableRow(
            variant.method,
            variant.presentation,
            variant.label,
            variant.hashes,
            cells.of(columns, variant.method, variant.records, numbers.get(variant.method, {})),
            cautions.trials(searched.get(variant.method, ())),
        )
        for variant in found
    ]
    rows, untested = marks.marked(columns, found, shaped(rows), within)
    rows = missing.explained(columns, at_least, found, rows, not_finished)
    of_definition = [*group.get("notes", ()), *definition.get("notes", ())]
    written = notes.written(of_definition, _for_notes(rows, aside, columns), columns)
    return Table(
        name=name,
        title=definition["title"],
        backbone=backbone,
        folder=within,
        records=tuple(loaded),
        columns=columns,
        rows=tuple(rows),
        notes=(
            *source,
            *written,
            *notes.typed(finished),
            *untested,
            *cautions.of(columns, found, rows, searched),
        ),
        unfinished=tuple(map(missing.unfinished, not_finished)),
        broken=tuple(told.lines),
        figure=group["figure"] | {"score": _scored(group["figure"]["score"], rows)},
        missing=tuple(_commands(group, backbone, columns, found)),
    )


def _records(
    backbone: str, columns: tuple[Column, ...], at_least: ListedRows, root: Path, told: _Told
) -> tuple[list[dict], list[dict]]:
    """All records of the table's folder, and of these the table's own, each with what was `typed` of it."""
    scored = {column.experiment for column in columns}
    counted = {column.experiment for column in columns if not column.is_score}

    def is_of_table(record: dict, cost: bool) -> bool:
        return record["identity"]["backbone"] == backbone and store.experiment(record) in (counted if cost else scored)

    loaded = _load(root, told.folder, told, lambda record: is_of_table(record, cost=False))
    typed = external.load(told.folder, loaded, _external(), told)
    return loaded, [
        record | {"typed": typed[record["path"]]}
        for record in loaded
        if is_of_table(record, store.is_cost(record)) and _names_its_row(record, at_least, told)
    ]


def declared_in(columns: tuple[Column, ...], records: list[dict]) -> tuple[Column, ...]:
    """The columns with the metrics that these records declare; a mean has that of its first part.

    Raises UserError where a metric is declared in two units or directions, and where a mean's parts are."""
    found: dict[str, Column] = {}
    for column in columns:
        parts = column.made_of or filter(None, [column.ppt])
        if metrics := [found[part].metric for part in parts if found[part].metric] or _metrics(column, records):
            if len({(metric.unit, metric.better) for metric in metrics}) > 1:
                raise UserError(f"column {column.title!r}: its scores are in several units, or of several directions")
            column = replace(column, metric=metrics[0])
        found[column.key] = column
    return tuple(found.values())


def _declaring(
    columns: tuple[Column, ...], loaded: list[dict], records: list[dict], told: _Told
) -> tuple[tuple[Column, ...], list[dict], list[dict]]:
    """Columns as records declare them; and records without those whose scores count as percent, as they do not say what
    they are, beside others in another unit."""
    columns = declared_in(columns, records)
    left = {record["path"]: column for record, column in product(records, columns) if _is_undeclared(column, record)}
    for path, column in left.items():
        told(
            UserError(
                f"{path}: field 'scores' does not say what '{column.value}' is, so that it counts as percent, and others "
                f"are in {column.metric.unit}: declare it, or run it again"
            )
        )
    return columns, *([record for record in found if record["path"] not in left] for found in (loaded, records))


def _is_undeclared(column: Column, record: dict) -> bool:
    if not column.is_measured or not column.metric or column.metric.unit == PERCENT:
        return False
    is_there = store.experiment(record) == column.experiment and cells.value(record, column.value) is not None
    return is_there and column.metric.name not in declared(record)


def _metrics(column: Column, records: list[dict]) -> list[Metric]:
    name = column.value.rpartition(".")[2]
    own = [record for record in records if column.is_measured and store.experiment(record) == column.experiment]
    return [metric for record in own if (metric := declared(record).get(name))]


def _apart(records: list[dict], condition: Callable[[dict], bool]) -> tuple[list[dict], list[dict]]:
    return [each for each in records if condition(each)], [each for each in records if not condition(each)]


def _commands(group: dict, backbone: str, columns: tuple[Column, ...], found: list[MethodVariant]) -> Iterable[str]:
    """Those that make the runs which are not there."""
    least = group.get("seeds", SEEDS)
    if "folder" in group:
        sweep = group.get("sweep", group["folder"]), group["folder"]
        return missing.command_of_sweep(sweep, group.get("choice", backbone), columns, found, least)
    return missing.commands(backbone, columns, found, least)


class _Told:
    """One line for each file that gave no number."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines: list[str] = []

    def __call__(self, error: UserError) -> None:
        self.lines.append(str(error).replace(f"{self.folder}/", ""))


def _load(root: Path, within: Path, told: _Told, verified: Verified) -> list[dict]:
    """What lies in the table's folder; nothing where that is a part of `root` in which nothing ran as yet."""
    if is_folder(Path(root)) and not is_there(within):
        return []
    return store.load(within, told, verified)


def _names_its_row(record: dict, rows: ListedRows, told: _Told) -> bool:
    name = cells.value(record, rows.field)
    if name is None or isinstance(name, str):
        return True
    found = shorten(json.dumps(name), 60)
    told(UserError(f"{record['path']}: field '{rows.field}' is {found}, no name of a row: correct it"))
    return False


def _group(name: str) -> dict:
    return next(group for group in groups().values() if name in group.get("tables", ()))


def columns() -> list[Column]:
    """Of all tables."""
    return [column for group in groups().values() if "tables" in group for column in columns_of(group)]


def showing(experiment: str, metric: str) -> list[Column]:
    """The columns of all tables that show this metric of the experiment, in whichever split."""
    return [column for column in _scores_of(experiment) if column.value.rpartition(".")[2] == metric]


def digits(experiment: str, metric: str) -> int:
    """With how many decimals a metric is shown: as its own columns show it, or else the other scores of its experiment."""
    shown = showing(experiment, metric) or _scores_of(experiment)
    return max((column.digits for column in shown), default=Column.digits)


def _scores_of(experiment: str) -> list[Column]:
    return [column for column in columns() if column.is_measured and column.experiment == experiment]


def _external() -> dict[str, external.Typable]:
    """{name under which a person may type it: what a column shows}, of all tables."""
    return {
        column.external: external.Typable(column.experiment, column.value) for column in columns() if column.external
    }


def _has(record: dict, fields: dict) -> bool:
    """Whether a record has these values in these dotted fields."""
    return all(cells.value(record, field) == value for field, value in fields.items())


def _for_notes(rows: list[TableRow], aside: dict[str, list[dict]], columns: tuple[Column, ...]) -> notes.Cells:
    """The cells that notes speak of: each method's first row that was not set aside, and each record set aside."""
    of_aside = {hash_ for records in aside.values() for hash_ in hashes(records)}
    found = {row.method: cells.of(columns, row.method, [], {}) for row in rows}
    found |= {row.method: row.cells for row in reversed(rows) if of_aside.isdisjoint(row.hashes)}
    return found | {key: cells.of(columns, key, records, {}) for key, records in aside.items()}


def shaped(rows: list[TableRow]) -> list[TableRow]:
    """The rows with the shapes of their marks."""
    of_colour: Counter[int | None] = Counter()
    found = []
    for row in rows:
        found.append(replace(row, shape=of_colour[row.presentation.colour]))
        of_colour[row.presentation.colour] += 1
    return found


def _scored(keys: list[str], rows: list[TableRow]) -> str:
    """That of these columns in which most methods have a number; the first of several."""
    methods = [row for row in rows if not row.presentation.is_control]
    return max(keys, key=lambda key: sum(row.cells[key].mean is not None for row in methods))
