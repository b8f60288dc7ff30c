"""The runs that a table is made of, those that did not finish, and what `mode=cost` measured for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vltune.records import store
from vltune.records.record import flatten
from vltune.results.tables.machines import machine

if TYPE_CHECKING:
    from vltune.results.tables.build import Table


@dataclass(frozen=True)
class TableRun:
    """row: the number of its row in the table; None where it has none, as of a run that did not finish."""

    record: dict
    row: int | None

    @property
    def seed(self) -> int:
        return self.record["identity"]["seed"]

    @property
    def trained(self) -> bool:
        return not store.is_cost(self.record)

    @property
    def machine(self) -> str:
        return machine(self.record) or "unknown"


def of(table: Table) -> list[TableRun]:
    """The records of a table's backbone, by experiment in the order of its columns, and as `store.load` has them."""
    order = list(dict.fromkeys(column.experiment for column in table.columns))
    rows = {(row.method, hash_): number for number, row in enumerate(table.rows) for hash_ in row.hashes}
    found = [
        TableRun(record, rows.get(_key(record)) if record["status"] == "finished" else None)
        for record in table.records
        if record["identity"]["backbone"] == table.backbone and store.experiment(record) in order
    ]
    return sorted(found, key=lambda run: order.index(store.experiment(run.record)))


def described(of_tables: Sequence[Sequence[TableRun]]) -> dict[str, Any]:
    """`common`: settings that all runs share; `settings`: what else each configuration has; `runs`: of each table.

    Settings are {dotted key: JSON}, the seed left out."""
    everything = [_settings(run.record["config"]) for runs in of_tables for run in runs]
    shared = set.intersection(*(set(settings.items()) for settings in everything)) if everything else set()
    common = dict(sorted(shared))
    settings: list[dict[str, str]] = []
    packages: list[dict] = []
    found = []
    for runs in of_tables:
        found.append([])
        for run in runs:
            own = {key: value for key, value in _settings(run.record["config"]).items() if key not in common}
            found[-1].append(
                _run(run) | {"settings": _place(settings, own), "packages": _place(packages, _packages(run.record))}
            )
    return {"common": common, "settings": settings, "packages": packages, "of": found}


def _key(record: dict) -> tuple[str, str]:
    return record["identity"]["method"], record["identity"]["hash"]


def _run(run: TableRun) -> dict[str, Any]:
    record, provenance = run.record, run.record["provenance"]
    kept = {key: record["identity"][key] for key in ("method", "hash", "seed")}
    kept |= {key: record[key] for key in ("status", "error", "path")}
    kept |= {key: provenance[key] for key in ("commit", "dirty", "precision", "started", "seconds")}
    return kept | {
        "row": run.row,
        "trained": run.trained,
        "experiment": store.experiment(record),
        "machine": run.machine,
        "scores": _measured(record["metrics"]),
        "costs": _measured(record["cost"]),
        "bad_examples": len(record.get("bad_examples") or ()),
    }


def _measured(tree: dict) -> dict[str, float]:
    return {key: value for key, value in flatten(tree).items() if isinstance(value, int | float)}


def _packages(record: dict) -> dict[str, str]:
    return record["provenance"]["packages"]


def _settings(config: Any, prefix: str = "") -> dict[str, str]:
    """{dotted key: JSON of the value}, lists whole; the seed is each run's own."""
    if not isinstance(config, dict) or not config:
        return {prefix: json.dumps(config, ensure_ascii=False, sort_keys=True)}
    flat = {}
    for key, value in sorted(config.items()):
        if prefix or key != "seed":
            flat |= _settings(value, f"{prefix}.{key}" if prefix else key)
    return flat


def _place(known: list, item: Any) -> int:
    if item not in known:
        known.append(item)
    return known.index(item)
