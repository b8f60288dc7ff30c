"""Which records stand in a row together: those of one configuration."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vltune import canonical
from vltune.catalogue import Presentation
from vltune.records import store
from vltune.records.record import flatten
from vltune.results.tables.cells import value
from vltune.results.tables.model import ListedRows, Table, TableRow
from vltune.results.tables.presentations import Methods

_SETTINGS = ("method", "backbone", "task", "dataset", "engine")
"""Groups of a configuration that say what a run is; the rest says how it was started."""
_NAMED = 3
"""Settings in a label, at most."""


@dataclass(frozen=True)
class MethodVariant:
    """One configuration of one method, as far as tasks share it."""

    name: str
    """The value of `ListedRows.field` that its records have."""
    method: str
    presentation: Presentation
    label: str
    records: list[dict]
    settings: dict[str, Any] | None
    """{dotted key: value} that others of its name have otherwise; None where these are too many to name."""

    @property
    def hashes(self) -> tuple[str, ...]:
        return hashes(self.records)

    @property
    def runs(self) -> list[dict]:
        return [record for record in self.records if not store.is_cost(record)]


def variants(records: list[dict], rows: ListedRows, methods: Methods) -> Iterator[MethodVariant]:
    """In the order of a table's rows; a value of `rows` without records has one without any.

    methods: the presentation of each.  Rows of methods stand in their order, those of other values as the table lists them
    and by name; controls are last."""
    by_name = defaultdict(list)
    for record in records:
        by_name[value(record, rows.field)].append(record)
    listed = {name: number for number, name in enumerate(rows.values)}

    def shown(name: str) -> Presentation:
        return methods.get(rows.method or name) or Presentation(name, name)

    def place(name: str) -> tuple:
        if rows.method is not None:
            return listed.get(name, len(listed)), name
        return shown(name).is_control, *shown(name).place

    for name in sorted(by_name.keys() - {None} | listed.keys(), key=place):
        label = shown(name).label if rows.method is None else name
        yield from _named(name, label, rows.method or name, shown(name), _variants(by_name[name]))


def hashes(records: Iterable[dict]) -> tuple[str, ...]:
    """Of the runs; of the costs where nothing was trained."""
    runs = [record for record in records if not store.is_cost(record)] or records
    return tuple(sorted({record["identity"]["hash"] for record in runs}))


def variant_of(table: Table, row: TableRow) -> MethodVariant:
    """With the runs that the row was made of."""
    own = [
        record | {"typed": {}}
        for record in table.records
        if record["status"] == "finished"
        and record["identity"]["backbone"] == table.backbone
        and (record["identity"]["method"], record["identity"]["hash"]) in {(row.method, each) for each in row.hashes}
    ]
    return MethodVariant(row.method, row.method, row.presentation, row.label, own, None)


def _variants(records: list[dict]) -> list[list[dict]]:
    """One method's records, one list per row: most seeds first, then by hash.  No records: one empty row.

    A row holds one hash per experiment.  Experiments meet in a row where the method's own settings (`config.method`)
    are equal and each has a single hash; otherwise which hash of one goes with which of another is anybody's guess, and
    every hash is a row.  What `mode=cost` measured, without data and so under another hash, joins the rows of the same
    method settings, unless their own runs of that experiment had another backbone, or other such costs could be theirs.
    """
    found = _configurations([record for record in records if not store.is_cost(record)], "method")
    found.sort(key=lambda variant: (-len(variant), hashes(variant)))
    costs = _configurations([record for record in records if store.is_cost(record)], "method", "backbone")
    alike = Counter(_settings(group[0], "method", "backbone") for group in costs)
    for group in costs:
        alone = alike[_settings(group[0], "method", "backbone")] == 1
        same = [variant for variant in found if alone and _is_cost_of(group[0], variant)]
        for variant in same:
            variant += group
        if not same:
            found.append(group)
    return found or [[]]


def _is_cost_of(cost: dict, variant: list[dict]) -> bool:
    runs = [run for run in variant if store.experiment(run) == store.experiment(cost)]
    return _settings(cost, "method") == _settings(variant[0], "method") and all(
        _settings(cost, "backbone") == _settings(run, "backbone") for run in runs
    )


def _settings(record: dict, *groups: str) -> str:
    return canonical.text([store.decisive(record, group) for group in groups])


def _configurations(records: list[dict], *groups: str) -> list[list[dict]]:
    """Records whose settings in these groups of the configuration are equal; each hash by itself where an experiment has
    several of them there."""
    of_hash: dict[str, str] = {}  # settings by hash: those that decide nothing may differ
    by_settings = defaultdict(list)
    for record in records:
        settings = of_hash.setdefault(record["identity"]["hash"], _settings(record, *groups))
        by_settings[settings].append(record)
    found = []
    for group in by_settings.values():
        pairs = {(store.experiment(record), record["identity"]["hash"]) for record in group}
        if len(pairs) == len({experiment for experiment, _ in pairs}):
            found.append(group)
        else:
            digests = dict.fromkeys(record["identity"]["hash"] for record in group)
            found += [[record for record in group if record["identity"]["hash"] == digest] for digest in digests]
    return found


def _named(
    name: str, label: str, method: str, presentation: Presentation, found: list[list[dict]]
) -> Iterator[MethodVariant]:
    """Labelled by `label`, and where it has several rows by the settings in which they differ from the first."""
    if len(found) == 1:
        yield MethodVariant(name, method, presentation, label, found[0], {})
        return
    configs = [flatten({group: store.decisive(records[0], group) for group in _SETTINGS}) for records in found]
    first = configs[0]
    changed = [{key for key in first.keys() | config.keys() if first.get(key) != config.get(key)} for config in configs]
    changed[0] = set().union(*changed)
    for records, keys in zip(found, changed, strict=True):
        settings = _held(records[0], keys) if 0 < len(keys) <= _NAMED else None
        told = ", ".join(f"{key}={value}" for key, value in settings.items()) if settings else "+".join(hashes(records))
        yield MethodVariant(name, method, presentation, f"{label} ({told})", records, settings)


def _held(record: dict, keys: Iterable[str]) -> dict[str, Any] | None:
    """{dotted key: value} of its run, in a record from before a setting what all runs had then; None where it has none."""
    config, held = flatten(record["config"]), {}
    for key in sorted(keys):
        group, _, name = key.partition(".")
        if key in config or name in store.before(group):
            held[key] = config.get(key, store.before(group).get(name))
    return held or None
