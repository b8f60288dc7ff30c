"""A table: rows of methods, columns of scores and costs, every number from a record or from the published table.

A YAML file beside this one defines tables of the same columns, one for each backbone; docs/results.md explains its keys.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from textwrap import shorten

from vltune.errors import UserError
from vltune.results import external, store
from vltune.results.record import flatten, read_json

METHODS = ("full", "classifier_only", "shallow_prompt", "deep_prompt", "lora", "adapter", "scaled_pa", "apt")
CONTROLS = ("question_only",)
"""Rows that are no tuning method: they say what a score is worth.  Last, and only where they were run."""
TYPED = "†"
"""Stands at what a person typed."""

# Values of a configuration that say how a run was started, not what it is.
_NO_SETTING = {"force", "from", "mode", "results_dir", "seed", "sweep"}
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """One column.  `title` holds the unit; `value` is a record's dotted field, divided by `scale`."""

    key: str
    title: str
    experiment: str
    value: str = ""
    value_for: dict[str, str] | None = None
    """{method: field}, where a method's value is another field than `value`."""
    mean_of: tuple[str, ...] = ()
    """Instead of `value`: for each seed that all of these earlier columns have, their mean."""
    scale: float = 1.0
    digits: int = 2
    published: str | None = None
    relative: bool = False
    """Whether a difference from the published number is shown in percent of it."""
    essential: bool = True
    """Whether it is shown where room is short: in a terminal and on a page (LaTeX)."""
    short: str | None = None
    """The heading there, where `title` is too long."""
    external: str | None = None
    """The name under which a person may type the value of a run whose record holds none (results/external.py)."""

    @property
    def is_score(self) -> bool:
        return bool(self.mean_of) or self.value.startswith("metrics.")

    def field(self, method: str) -> str:
        return (self.value_for or {}).get(method, self.value)


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation (ddof=1) over `n` seeds, in the column's unit; None where there is none."""

    mean: float | None = None
    std: float | None = None
    n: int = 0
    published: float | None = None
    typed: int = 0
    """Of how many of the seeds a person typed it, or a part of it."""

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


@cache
def _groups() -> dict[str, dict]:
    """{name of a file: its definition}"""
    import yaml

    return {file.stem: yaml.safe_load(file.read_text()) for file in sorted(_HERE.glob("*.yaml"))}


def names() -> list[str]:
    """The tables that can be built: each is the one of the backbone whose name it has."""
    return [name for group in _groups().values() for name in group["tables"]]


def expand(name: str) -> list[str]:
    """The tables that `name` means: itself, or those of its file.  Raises UserError for an unknown name."""
    groups = _groups()
    if name not in {*groups, *names()}:
        raise UserError(f"table {name!r} is not known: use one of {', '.join(sorted({*groups, *names()}))}")
    return list(groups[name]["tables"]) if name in groups else [name]


def build(name: str, root: Path) -> Table:
    """Table `name` (one of `names()`) of the records under `root`; published numbers come from `root/paper/`.

    Raises UserError where `root` is not a folder.
    """
    group = next(group for group in _groups().values() if name in group["tables"])
    definition = group["tables"][name]
    columns = _columns(group)
    experiments = {
        False: {column.experiment for column in columns},
        True: {column.experiment for column in columns if not column.is_score},
    }
    broken: list[str] = []
    loaded = store.load(root, on_broken=lambda error: broken.append(str(error).replace(f"{root}/", "")))
    typed = external.load(root, loaded, _external())
    records = [
        record | {"typed": typed[record["path"]]}
        for record in loaded
        if record["identity"]["backbone"] == name and store.experiment(record) in experiments[store.is_cost(record)]
    ]
    notes = []
    published = {}
    if any(column.published for column in columns):
        file = Path(root) / "paper" / f"{name}.json"
        if file.exists():
            paper = read_json(file)
            published = paper["rows"]
            notes.append(f"Published numbers: {paper['source']}.")
        else:
            notes.append(f"Published numbers are left out: there is no paper/{file.name}.")
    finished = [record for record in records if record["status"] == "finished"]
    aside = {
        key: [record for record in finished if _has(record, fields)]
        for key, fields in definition.get("aside", {}).items()
    }
    set_aside = [record for chosen in aside.values() for record in chosen]
    in_rows = [record for record in finished if not (store.is_cost(record) and record in set_aside)]
    rows = tuple(_rows(in_rows, columns, published))
    return Table(
        name=name,
        title=definition["title"],
        columns=columns,
        rows=rows,
        notes=(
            *notes,
            *_notes([*group["notes"], *definition.get("notes", ())], _for_notes(rows, aside, columns), columns),
            *_typed_note(finished),
        ),
        unfinished=tuple(_unfinished(record) for record in records if record["status"] != "finished"),
        broken=tuple(broken),
        figure=group["figure"] | {"score": _scored(group["figure"]["score"], rows)},
    )


def _columns(group: dict) -> tuple[Column, ...]:
    return tuple(Column(**{"experiment": group["experiment"]} | column) for column in group["columns"])


def _external() -> dict[str, Column]:
    """{name under which a person may type it: a column that shows it}, of all tables."""
    return {column.external: column for group in _groups().values() for column in _columns(group) if column.external}


def _typed_note(records: list[dict]) -> Iterator[str]:
    """Whose numbers the marked ones are."""
    scores = [(Path(record["path"]).stem, score) for record in records for score in record["typed"].values()]
    if scores:
        said = "; ".join(f"{run} {score.value:.2f} ({score.source}; by {score.by})" for run, score in scores)
        yield f"{TYPED} typed by a person from the official server, not computed here: {said}."


def _has(record: dict, fields: dict) -> bool:
    """Whether a record has these values in these dotted fields."""
    return all(_value(record, field) == value for field, value in fields.items())


def _for_notes(rows: tuple[Row, ...], aside: dict[str, list[dict]], columns: tuple[Column, ...]) -> dict:
    """The cells that notes speak of: each method's first row that was not set aside, and each record set aside."""
    cells = {method: _cells(columns, method, [], {}) for method in METHODS}
    hashes = {hash_ for records in aside.values() for hash_ in _hashes(records)}
    cells |= {row.method: row.cells for row in reversed(rows) if hashes.isdisjoint(row.hashes)}
    return cells | {key: _cells(columns, key, records, {}) for key, records in aside.items()}


def _scored(keys: list[str], rows: tuple[Row, ...]) -> str:
    """The first of these columns in which we have a number, else the first."""
    return next((key for key in keys if any(row.cells[key].mean is not None for row in rows)), keys[0])


def _rows(records: list[dict], columns: tuple[Column, ...], published: dict) -> Iterator[Row]:
    by_method = defaultdict(list)
    for record in records:
        by_method[record["identity"]["method"]].append(record)
    others = sorted(by_method.keys() - {*METHODS, *CONTROLS})
    for method in (*METHODS, *others, *(control for control in CONTROLS if control in by_method)):
        variants = _variants(by_method[method])
        for variant, label in zip(variants, _labels(method, variants), strict=True):
            yield Row(method, label, _hashes(variant), _cells(columns, method, variant, published.get(method, {})))


def _variants(records: list[dict]) -> list[list[dict]]:
    """One method's records, one list per row: most seeds first, then by hash.  No records: one empty row.

    A row holds one hash per experiment.  Experiments meet in a row where the method's own settings (`config.method`)
    are equal and each has a single hash; otherwise which hash of one goes with which of another is anybody's guess, and
    every hash is a row.  What `mode=cost` measured, without data and so under another hash, joins the rows of the same
    method settings, unless their own runs of that experiment had another backbone.
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
        same = [variant for variant in variants if _is_cost_of(costs[0], variant)]
        for variant in same:
            variant += costs
        if not same:
            variants.append(costs)
    return variants or [[]]


def _is_cost_of(cost: dict, variant: list[dict]) -> bool:
    runs = [run for run in variant if store.experiment(run) == store.experiment(cost)]
    return _settings(cost, "method") == _settings(variant[0], "method") and all(
        _settings(cost, "backbone") == _settings(run, "backbone") for run in runs
    )


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


def _cells(columns: tuple[Column, ...], method: str, records: list[dict], published: dict) -> dict[str, Cell]:
    by_seed: dict[str, dict[int, float]] = {}
    typed: dict[str, set[int]] = {}
    cells = {}
    for column in columns:
        if column.mean_of:
            parts = [by_seed[key] for key in column.mean_of]
            found = {seed: mean(part[seed] for part in parts) for seed in sorted(set.intersection(*map(set, parts)))}
            typed[column.key] = set.union(*(typed[key] for key in column.mean_of)) & found.keys()
        else:
            scores = _typed(column, records)
            found = _by_seed(column, method, records) | scores
            typed[column.key] = set(scores)
        by_seed[column.key] = found
        values = list(found.values())
        ours = (mean(values), stdev(values) if len(values) > 1 else None, len(values)) if values else (None, None, 0)
        cells[column.key] = Cell(*ours, published.get(column.published), len(typed[column.key]))
    return cells


def _typed(column: Column, records: list[dict]) -> dict[int, float]:
    """{seed: what a person typed}"""
    return {
        record["identity"]["seed"]: record["typed"][column.external].value
        for record in records
        if column.external in record["typed"]
    }


def _by_seed(column: Column, method: str, records: list[dict]) -> dict[int, float]:
    """{seed: number, in the column's unit}"""
    field = column.field(method)
    found: dict[bool, dict[int, float]] = {False: {}, True: {}}
    for record in records:
        if store.experiment(record) == column.experiment and (value := _value(record, field)) is not None:
            found[store.is_cost(record)][record["identity"]["seed"]] = value / column.scale
    # A training run's own cost goes before what `mode=cost` measured in a process of its own.
    return found[False] or found[True]


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


def _notes(
    notes: Iterable[str | dict], cells: dict[str, dict[str, Cell]], columns: tuple[Column, ...]
) -> Iterator[str]:
    """Plain notes, and those that speak of the table's own cells, where every number that they name is there.

    `text` names cells as `{method[column].mean}`; `saving` gives it more names, each for the percent by which the first
    number is below the second; with `differs` the note is for the case that this cell is not the published one.
    """
    digits = {column.key: column.digits for column in columns}
    for note in notes:
        if isinstance(note, str):
            yield note
            continue
        if "differs" in note:
            method, column = note["differs"]
            if not round(cells[method][column].difference or 0.0, digits[column]):
                continue
        savings = {
            name: _saving(*(_number(cells, path) for path in pair)) for name, pair in note.get("saving", {}).items()
        }
        try:
            text = note["text"].format(**cells, **savings)
        except TypeError:  # what was not measured is None, which has no decimals
            continue
        yield text


def _number(cells: dict[str, dict[str, Cell]], path: str) -> float | None:
    """The number that `method.column.field` names."""
    method, column, field = path.split(".")
    return getattr(cells[method][column], field)


def _saving(less: float | None, more: float | None) -> float | None:
    return 100 * (1 - less / more) if more and less is not None else None
