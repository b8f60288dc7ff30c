"""Which scores can be told from their column's best: `vltune.stats.significance` on a table's runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np

from vltune.errors import UserError
from vltune.records import store
from vltune.records.predictions import PREDICTIONS
from vltune.results.tables import cells
from vltune.results.tables.model import ALIKE, SAME, UNTESTED, Cell, Column, Row
from vltune.results.tables.rows import Variant
from vltune.stats import significance
from vltune.stats.outcomes import Outcomes
from vltune.stats.significance import LEVEL, Spread

Loaded = dict[tuple[str, int], dict[int, Outcomes] | str]
"""{(column, row): {seed: the outcomes of its run}, or why they are not there}"""


@dataclass(frozen=True)
class Paired:
    """A row against the best in one column, of the seeds that both have."""

    labels: np.ndarray
    """(units,) what tells the units apart"""
    sizes: np.ndarray
    """(units,) how many examples each has"""
    differences: np.ndarray
    """(seeds, units) by how much the best scored more, summed over a unit's examples"""

    def __post_init__(self):
        if len(self.labels) < 2:
            raise UserError("all examples share one image or text, so that there is nothing to test by")


@dataclass(frozen=True)
class Test:
    """Of one row against the best.  p_seeds: None where no row has several seeds."""

    p_examples: float
    p_seeds: float | None


def marked(
    columns: tuple[Column, ...], variants: list[Variant], rows: list[Row], root: Path
) -> tuple[list[Row], list[str]]:
    """The rows with every score's place in its column, and a note on the columns in which tests could not be made."""
    found = [dict(row.cells) for row in rows]
    untested = []
    loaded: Loaded = {}
    for column in columns:
        entered = [
            place
            for place, row in enumerate(rows)
            if not row.presentation.is_control and row.cells[column.key].mean is not None
        ]
        if column.ppt or not column.is_score or len(entered) < 2:
            continue
        parts = [part for part in columns if part.key in column.mean_of] or [column]
        for part in parts:
            _load(loaded, part, variants, entered, root)
        best = max(entered, key=lambda place: rows[place].cells[column.key].mean)
        others = [place for place in entered if place != best]
        tests, reasons = _tests(parts, variants, loaded, best, others)
        if reasons:
            first = next(iter(reasons.values()))
            untested.append(f"{column.name} {len(reasons)} of {len(others)} ({first})")
        if tests:
            for place, cell in _judged(column, rows, best, others, tests):
                found[place][column.key] = cell
    notes = [f"Rows not tested against their column's best: {'; '.join(untested)}."] if untested else []
    return [replace(row, cells=own) for row, own in zip(rows, found, strict=True)], notes


def _judged(
    column: Column, rows: list[Row], best: int, others: list[int], tests: dict[int, Test]
) -> Iterator[tuple[int, Cell]]:
    """The cells of a column, with the corrected tests and what follows from them."""
    by_examples = _corrected({place: test.p_examples for place, test in tests.items()})
    by_seeds = _corrected({place: test.p_seeds for place, test in tests.items() if test.p_seeds is not None})
    yield best, replace(rows[best].cells[column.key], best=True)
    for place in others:
        cell = rows[place].cells[column.key]
        if place not in tests:
            yield place, replace(cell, mark=UNTESTED)
            continue
        p_examples, p_seeds = by_examples[place], by_seeds.get(place)
        yield place, replace(cell, mark=_mark(p_examples, p_seeds), p_examples=p_examples, p_seeds=p_seeds)


def _mark(p_examples: float, p_seeds: float | None) -> str:
    if p_examples >= LEVEL:
        return SAME
    return ALIKE if p_seeds is None or p_seeds >= LEVEL else ""


def _corrected(chances: dict[int, float]) -> dict[int, float]:
    return dict(zip(chances, significance.holm(list(chances.values())), strict=True))


def _tests(
    parts: list[Column], variants: list[Variant], loaded: Loaded, best: int, others: list[int]
) -> tuple[dict[int, Test], dict[int, str]]:
    """{row: its test} and {row: why there is none}, of the mean of these columns, or of the one."""
    pairs: dict[int, list[Paired]] = {}
    reasons = {}
    for place in others:
        try:
            pairs[place] = _paired(parts, loaded, best, place, variants[place].label)
        except UserError as error:
            reasons[place] = str(error)
    if not pairs:
        return {}, reasons
    strata = {place: _strata(parts, paired) for place, paired in pairs.items()}
    if len(parts) == 1 and parts[0].value.endswith(".accuracy"):
        sums = (paired.differences.sum(0) for (paired,) in pairs.values())
        by_examples = [significance.mcnemar(np.rint(each).astype(np.int64)) for each in sums]
    else:
        averaged = [[stratum.mean(0) for stratum in of_place] for of_place in strata.values()]
        by_examples = significance.bootstrap([np.stack(stratum) for stratum in zip(*averaged, strict=True)])
    among = significance.spread([_means(parts, variants[place]) for place in (best, *others)])
    tests = {place: _test(strata[place], float(p), among) for place, p in zip(strata, by_examples, strict=True)}
    return tests, reasons


def _test(strata: Sequence[np.ndarray], p_examples: float, among: Spread | None) -> Test:
    if sum(stratum.mean() for stratum in strata) <= 0:  # on the seeds that both have, the best is not better
        return Test(1.0, 1.0)
    return Test(p_examples, significance.over_seeds(strata, among) if among else None)


def _strata(parts: list[Column], pairs: list[Paired]) -> list[np.ndarray]:
    """(seeds, units) effects on the mean of these columns, one for each set of images: both ways of retrieval have one."""
    found: dict[tuple, np.ndarray] = {}
    for part, paired in zip(parts, pairs, strict=True):
        images = (part.experiment, paired.labels.tobytes())
        effects = significance.effects(paired.differences, paired.sizes) / len(parts)
        found[images] = found[images] + effects if images in found else effects
    return list(found.values())


def _means(parts: list[Column], variant: Variant) -> dict[int, float]:
    """{seed that all parts have: their mean, from 0 to 1}"""
    found = [cells.scores(part, variant.method, variant.records) for part in parts]
    return {seed: mean(part[seed] for part in found) / 100 for seed in sorted(set.intersection(*map(set, found)))}


def _load(loaded: Loaded, column: Column, variants: list[Variant], places: Iterable[int], root: Path) -> None:
    for place in places:
        if (column.key, place) not in loaded:
            try:
                loaded[column.key, place] = _outcomes(column, variants[place], root)
            except UserError as error:
                loaded[column.key, place] = str(error)


def _outcomes(column: Column, variant: Variant, root: Path) -> dict[int, Outcomes]:
    """{seed: what its predictions give}.  Raises UserError where a run has none that can be used."""
    found: dict[int, Outcomes] = {}
    for run in variant.runs:
        if store.experiment(run) != column.experiment:
            continue
        if cells.value(run, column.value) is None:
            if column.external in run["typed"]:
                raise UserError(f"{run['path']}: a person typed its score")
            continue
        file = (Path(root) / run["path"]).with_suffix(PREDICTIONS)
        try:
            found[run["identity"]["seed"]] = significance.outcomes(file, column.value.removeprefix("metrics."), run)
        except UserError as error:
            raise UserError(str(error).replace(f"{root}/", "")) from None
    return found


def _paired(parts: list[Column], loaded: Loaded, best: int, other: int, label: str) -> list[Paired]:
    """Of each of these columns.  Raises UserError where runs, seeds or examples are lacking."""
    runs = [[loaded[part.key, place] for place in (best, other)] for part in parts]
    for found in (found for pair in runs for found in pair):
        if isinstance(found, str):
            raise UserError(found)
    seeds = sorted(set.intersection(*(set(found) for pair in runs for found in pair)))
    if not seeds:
        raise UserError(f"{label}: no seed that the best has too")
    return [_differences(part, *pair, seeds, label) for part, pair in zip(parts, runs, strict=True)]


def _differences(
    column: Column, of_best: dict[int, Outcomes], of_other: dict[int, Outcomes], seeds: list[int], label: str
) -> Paired:
    ids = next(iter(of_best.values())).ids
    labels, units = np.unique(ids // column.unit, return_inverse=True)
    found = []
    for seed in seeds:
        if not all(np.array_equal(ids, runs[seed].ids) for runs in (of_best, of_other)):
            raise UserError(f"{label}: seed {seed} has other examples than the best")
        found.append(np.bincount(units, of_best[seed].scores - of_other[seed].scores))
    return Paired(labels, np.bincount(units).astype(np.float64), np.stack(found))
