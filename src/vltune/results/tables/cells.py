"""The numbers of one row, from its records."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import harmonic_mean, mean, stdev
from typing import Any

from vltune.records import store
from vltune.results.tables.machines import arithmetic, machine
from vltune.results.tables.model import Cell, Column
from vltune.stats import significance

PPT_CONSTANT = 1e7
DIFFERENT = "differs"
"""Of a cost that runs of one configuration have different numbers of: no mean is any of them."""


def of(columns: tuple[Column, ...], method: str, records: list[dict], published: dict) -> dict[str, Cell]:
    """{column's key: its cell}"""
    numbers: dict[str, dict[int, float]] = {}
    typed: dict[str, set[int]] = {}
    made_on: dict[str, set[str]] = {}
    found = {}
    for column in columns:
        key = column.key
        if column.made_of:
            parts = [numbers[part] for part in column.made_of]
            seeds = sorted(set.intersection(*map(set, parts)))
            average = harmonic_mean if column.harmonic_of else mean
            numbers[key] = {seed: average(part[seed] for part in parts) for seed in seeds}
            typed[key] = set.union(*(typed[part] for part in column.made_of)) & numbers[key].keys()
            made_on[key] = set.union(*(made_on[part] for part in column.made_of))
        elif column.ppt:
            parameters = _parameters(column, records)
            rated = numbers[column.ppt] if len(parameters) == 1 else {}
            numbers[key] = {seed: ppt(score / column.factor, *parameters) for seed, score in rated.items()}
            typed[key] = typed[column.ppt] & numbers[key].keys()
            made_on[key] = made_on[column.ppt]
        else:
            numbers[key] = scores(column, method, records)
            typed[key] = set(_typed(column, records))
            made_on[key] = _machines(column, method, records)
        cell = _cell(column, list(numbers[key].values()), published.get(column.published), len(typed[key]))
        if column.harmonic_of and cell.mean is not None:
            cell = _of_means(cell, [mean(part[seed] for seed in seeds) for part in parts])
        if column.ppt and numbers[column.ppt] and len(parameters) > 1:
            cell = replace(cell, reason=DIFFERENT)
        found[key] = cell if cell.mean is None else replace(cell, machines=max(1, len(made_on[key])))
    return found


def _machines(column: Column, method: str, records: list[dict]) -> set[str]:
    """On which its numbers were made; none of a cost that a configuration decides."""
    of = arithmetic if column.is_measured else machine
    alike = [record for record in records if not column.is_counted]
    return {of(record) for record in alike if scores(column, method, [record])}


def scores(column: Column, method: str, records: list[dict]) -> dict[int, float]:
    """{seed: number, in the column's unit}; a cost likewise"""
    if column.is_measured:  # which `mode=cost` does not
        records = [record for record in records if not store.is_cost(record)]
    return _by_seed(column.experiment, column.field(method), column.scale, records) | _typed(column, records)


def value(record: dict, field: str) -> Any:
    """What a record holds at this dotted key; None where there is nothing."""
    found = record
    for key in field.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def splits(record: dict, split: str) -> tuple[str, ...]:
    """Those of the data that a run read as its `val` or `test`; none of a record that does not say it.  Examples are told
    apart by their place in all of them, so that only runs that read the same in the same order can be paired."""
    return tuple(value(record, f"config.dataset.{split}") or ())


def ppt(score: float, parameters: float) -> float:
    """V-PETL Bench's performance-parameter trade-off (Xin et al. 2024) of a score from 0 to 1."""
    return score * math.exp(-math.log10(parameters / PPT_CONSTANT + 1))


def _cell(column: Column, values: list[float], published: float | None, typed: int) -> Cell:
    if not values:
        return Cell(published=published)
    if column.is_counted and len(set(values)) > 1:
        return Cell(published=published, n=len(values), reason=DIFFERENT)
    deviation = stdev(values) if len(values) > 1 else None
    interval = significance.interval(values) if column.is_score else None
    return Cell(mean(values), deviation, len(values), published, typed, interval, 0.5 * 10**-column.digits)


def _of_means(cell: Cell, means: list[float]) -> Cell:
    """The harmonic mean of the parts' means over common seeds, as papers print it; how far it varies, by the seeds' own."""
    moved = (own := harmonic_mean(means)) - cell.mean
    interval = None if cell.interval is None else tuple(end + moved for end in cell.interval)
    return replace(cell, mean=own, interval=interval)


def _parameters(column: Column, records: list[dict]) -> set[float]:
    """Parameters that the method adds or tunes, those of the task left out: one number, unless records disagree."""
    return set(_by_seed(column.experiment, "cost.method_params", 1.0, records).values())


def _typed(column: Column, records: list[dict]) -> dict[int, float]:
    """{seed: what a person typed}"""
    return {
        record["identity"]["seed"]: record["typed"][column.external].value
        for record in records
        if column.external in record["typed"]
    }


def _by_seed(experiment: str, field: str, scale: float, records: list[dict]) -> dict[int, float]:
    found: dict[bool, dict[int, float]] = {False: {}, True: {}}
    for record in records:
        if store.experiment(record) == experiment and (number := value(record, field)) is not None:
            found[store.is_cost(record)][record["identity"]["seed"]] = number / scale
    # A training run's own cost goes before what `mode=cost` measured in a process of its own.
    return found[False] or found[True]
