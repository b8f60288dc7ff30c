"""A table: rows of methods, columns of scores and costs, every number from a record or from the published table.

A YAML file beside this one defines tables of the same columns, one for each backbone; docs/results.md explains its keys,
docs/statistics.md what the marks at scores mean.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from vltune.errors import UserError
from vltune.results import external, store
from vltune.results.record import read_json
from vltune.results.tables import cautions, cells, marks, missing, notes
from vltune.results.tables.model import (
    ALIKE,
    CONTROLS,
    METHODS,
    SAME,
    TYPED,
    UNTESTED,
    Cell,
    Column,
    Row,
    Rows,
    Table,
)
from vltune.results.tables.rows import hashes, variants

__all__ = [
    "ALIKE",
    "CONTROLS",
    "METHODS",
    "SAME",
    "TYPED",
    "UNTESTED",
    "Cell",
    "Column",
    "Row",
    "Table",
    "build",
    "columns",
    "expand",
    "names",
]

_HERE = Path(__file__).parent


@cache
def _groups() -> dict[str, dict]:
    """{name of a file: its definition}"""
    import yaml

    return {file.stem: yaml.safe_load(file.read_text()) for file in sorted(_HERE.glob("*.yaml"))}


def names() -> list[str]:
    """The tables that can be built."""
    return [name for group in _groups().values() for name in group["tables"]]


def listed(name: str) -> Rows:
    """The rows that table `name` has at least."""
    return Rows(**_group(name).get("rows", {}))


def expand(name: str) -> list[str]:
    """The tables that `name` means: itself, or those of its file.  Raises UserError for an unknown name."""
    groups = _groups()
    if name not in {*groups, *names()}:
        raise UserError(f"table {name!r} is not known: use one of {', '.join(sorted({*groups, *names()}))}")
    return list(groups[name]["tables"]) if name in groups else [name]


def build(name: str, root: Path) -> Table:
    """Table `name` (one of `names()`) of the records under `root`, or under the folder in it that the definition names;
    published numbers come from `root/paper/`, marks from the predictions beside the records, the number of trials from
    `root/learning_rates/`.

    Raises UserError where `root` is not a folder.
    """
    group = _group(name)
    definition = group["tables"][name]
    backbone, columns, at_least = definition.get("backbone", name), _columns(group), listed(name)
    within = Path(root) / group.get("folder", "")
    experiments = {
        False: {column.experiment for column in columns},
        True: {column.experiment for column in columns if not column.is_score},
    }
    broken: list[str] = []
    loaded = _load(root, within, broken)
    typed = external.load(within, loaded, _external())
    records = [
        record | {"typed": typed[record["path"]]}
        for record in loaded
        if record["identity"]["backbone"] == backbone and store.experiment(record) in experiments[store.is_cost(record)]
    ]
    published, source = _published(name, columns, root)
    finished = [record for record in records if record["status"] == "finished"]
    not_finished = [record for record in records if record["status"] != "finished"]
    aside = {
        key: [record for record in finished if _has(record, fields)]
        for key, fields in definition.get("aside", {}).items()
    }
    set_aside = [record for chosen in aside.values() for record in chosen]
    in_rows = [record for record in finished if not (store.is_cost(record) and record in set_aside)]
    found = list(variants(in_rows, at_least))
    searched = cautions.searches(root, backbone)
    rows = [
        Row(
            variant.method,
            variant.label,
            variant.hashes,
            cells.of(columns, variant.method, variant.records, published.get(variant.method, {})),
            cautions.trials(searched.get(variant.method, ())),
        )
        for variant in found
    ]
    rows, untested = marks.marked(columns, found, rows, within)
    rows = missing.explained(columns, at_least, found, rows, not_finished)
    if sweep := group.get("sweep"):
        commands = missing.command_of_sweep(sweep, group["folder"], backbone, columns, found)
    else:
        commands = missing.commands(backbone, columns, found)
    of_definition = [*group["notes"], *definition.get("notes", ())]
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
            *notes.written(of_definition, _for_notes(rows, aside, columns), columns),
            *notes.typed(finished),
            *untested,
            *cautions.of(columns, found, rows, searched),
        ),
        unfinished=tuple(map(missing.unfinished, not_finished)),
        broken=tuple(broken),
        figure=group["figure"] | {"score": _scored(group["figure"]["score"], rows)},
        missing=tuple(commands),
    )


def _load(root: Path, within: Path, broken: list[str]) -> list[dict]:
    """What lies in the table's folder; nothing where that is a part of `root` in which nothing ran as yet."""
    if Path(root).is_dir() and not within.is_dir():
        return []
    return store.load(within, on_broken=lambda error: broken.append(str(error).replace(f"{within}/", "")))


def _group(name: str) -> dict:
    return next(group for group in _groups().values() if name in group["tables"])


def _columns(group: dict) -> tuple[Column, ...]:
    return tuple(Column(**{"experiment": group["experiment"]} | column) for column in group["columns"])


def columns() -> list[Column]:
    """Of all tables."""
    return [column for group in _groups().values() for column in _columns(group)]


def _external() -> dict[str, Column]:
    """{name under which a person may type it: a column that shows it}, of all tables."""
    return {column.external: column for column in columns() if column.external}


def _published(name: str, columns: tuple[Column, ...], root: Path) -> tuple[dict[str, dict], list[str]]:
    """{method: {name: number}} and a note on where they come from; both empty for a table without published columns."""
    if not any(column.published for column in columns):
        return {}, []
    file = Path(root) / "paper" / f"{name}.json"
    if not file.exists():
        return {}, [f"Published numbers are left out: there is no paper/{file.name}."]
    paper = read_json(file)
    return paper["rows"], [f"Published numbers: {paper['source']}."]


def _has(record: dict, fields: dict) -> bool:
    """Whether a record has these values in these dotted fields."""
    return all(cells.value(record, field) == value for field, value in fields.items())


def _for_notes(rows: list[Row], aside: dict[str, list[dict]], columns: tuple[Column, ...]) -> notes.Cells:
    """The cells that notes speak of: each method's first row that was not set aside, and each record set aside."""
    found = {method: cells.of(columns, method, [], {}) for method in METHODS}
    of_aside = {hash_ for records in aside.values() for hash_ in hashes(records)}
    found |= {row.method: row.cells for row in reversed(rows) if of_aside.isdisjoint(row.hashes)}
    return found | {key: cells.of(columns, key, records, {}) for key, records in aside.items()}


def _scored(keys: list[str], rows: list[Row]) -> str:
    """The first of these columns in which we have a number, else the first."""
    return next((key for key in keys if any(row.cells[key].mean is not None for row in rows)), keys[0])
