"""Which scores can be told from their column's best, or from each other: `vltune.stats.significance` on a table's runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean

import numpy as np

from vltune.errors import UserError
from vltune.records import store
from vltune.records.predictions import PREDICTIONS
from vltune.records.verified import outcomes
from vltune.results.tables import cells
from vltune.results.tables.model import ALIKE, SAME, UNTESTED, Cell, Column, TableRow
from vltune.results.tables.rows import MethodVariant
from vltune.stats import paired, significance
from vltune.stats.outcomes import Outcomes
from vltune.stats.paired import Paired
from vltune.stats.power import Noise
from vltune.stats.significance import LEVEL, Spread

Pair = tuple[int, int]
"""Two rows, the one with the better mean first."""
Loaded = dict[tuple[str, int], dict[int, Outcomes] | str]
"""{(column, row): {seed: the outcomes of its run}, or why they are not there}"""


@dataclass(frozen=True)
class Test:
    """Of one row against a better one.  p_seeds: None where no row has several seeds."""

    p_examples: float
    p_seeds: float | None


def marked(
    columns: tuple[Column, ...], variants: list[MethodVariant], rows: list[TableRow], root: Path
) -> tuple[list[TableRow], list[str]]:
    """The rows with every score's place in its column, and a note on the columns in which tests could not be made."""
    found = [dict(row.cells) for row in rows]
    untested = []
    loaded: Loaded = {}
    for column in columns:
        entered = _entered(column, rows)
        if column.ppt or column.harmonic_of or not column.is_score or len(entered) < 2:
            continue
        parts = [part for part in columns if part.key in column.mean_of] or [column]
        for part in parts:
            _load(loaded, part, variants, entered, root)
        best = _best(column, entered, rows)
        others = [place for place in entered if place != best]
        tests, reasons = _tests(parts, variants, loaded, [(best, other) for other in others])
        if reasons:
            first = next(iter(reasons.values()))
            untested.append(f"{column.name} {len(reasons)} of {len(others)} ({first})")
        if tests:
            for place, cell in _judged(column, rows, best, others, tests):
                found[place][column.key] = cell
    notes = [f"Rows not tested against their column's best: {'; '.join(untested)}."] if untested else []
    notes += _graded(columns, rows, loaded)
    return [replace(row, cells=own) for row, own in zip(rows, found, strict=True)], notes


def _graded(columns: Sequence[Column], rows: Sequence[TableRow], loaded: Loaded) -> Iterator[str]:
    """Columns of right and wrong answers with rows of which McNemar's test cannot be made."""
    for column in columns:
        of = {place: found for (key, place), found in loaded.items() if key == column.key and isinstance(found, dict)}
        graded = [place for place, found in of.items() if not all(each.signs for each in found.values())]
        if column.metric and column.metric.signs and graded:
            labels = ", ".join(rows[place].label for place in sorted(graded))
            yield f"{column.name}: examples of {labels} are not all right or wrong; the bootstrap takes McNemar's place."


def _entered(column: Column, rows: Sequence[TableRow]) -> list[int]:
    """The rows that have a score of this column and take part in tests."""
    return [
        place
        for place, row in enumerate(rows)
        if not row.presentation.is_control and row.cells[column.key].mean is not None
    ]


def _best(column: Column, entered: list[int], rows: list[TableRow]) -> int:
    """The first of those with the best mean."""
    sign = -1 if column.less else 1
    return max(entered, key=lambda place: sign * rows[place].cells[column.key].mean)


def told_apart(
    column: Column, variants: list[MethodVariant], rows: Sequence[TableRow], root: Path
) -> tuple[list[int], dict[Pair, bool], dict[Pair, str]]:
    """The rows with a score of this column, the best first and without controls; whether each pair of them is told apart,
    once seeds are taken into account, corrected for the number of pairs (Holm); and why others could not be tested."""
    sign = -1 if column.less else 1
    entered = sorted(_entered(column, rows), key=lambda place: -sign * rows[place].cells[column.key].mean)
    loaded: Loaded = {}
    _load(loaded, column, variants, entered, root)
    tests, reasons = _tests([column], variants, loaded, list(combinations(entered, 2)))
    corrected = _corrected(tests).items()
    return entered, {pair: not _mark(p_examples, p_seeds) for pair, (p_examples, p_seeds) in corrected}, reasons


def noise(
    column: Column, columns: Sequence[Column], variants: list[MethodVariant], rows: Sequence[TableRow], root: Path
) -> Noise:
    """What moves the difference of two rows in this column; of its examples, the middle one of all pairs of rows that have
    several seeds and the most units.  Rows that cannot be paired with any so are left out.

    Raises UserError where so many rows, seeds or predictions are lacking that no pair is left."""
    entered = _entered(column, rows)
    parts = [part for part in columns if part.key in column.mean_of] or [column]
    loaded: Loaded = {}
    for part in parts:
        _load(loaded, part, variants, entered, root)
    found, reasons = _pairs(parts, variants, loaded, list(combinations(entered, 2)))
    strata = {pair: paired.strata(of) for pair, of in found.items()}
    most = max((_units(of) for of in strata.values() if len(of[0]) > 1), default=0)
    strata = {pair: of for pair, of in strata.items() if _units(of) == most}
    pairs = [of for of in strata.values() if len(of[0]) > 1]
    places = sorted({place for pair in strata for place in pair})
    own = (_own_spread(parts, variants, pair) for pair in strata)
    among = _spread(parts, variants, places) or max(filter(None, own), key=lambda found: found.variance, default=None)
    if among is None:
        raise UserError(next(iter(reasons.values()), "needs two methods with two seeds each"))
    methods = len(places)
    fewest = min(len(strata[0]) for strata in pairs)  # what is planned with is that all rows have so many
    return Noise(
        between_units=_middle(pairs, significance.between_units),
        units=most,
        among=replace(among, freedom=min(among.freedom, (methods - 1) * (fewest - 1))),
        by_single_units=_middle(pairs, significance.by_single_units) / 2,  # of one method: a difference has two
        seeds=fewest,
        methods=methods,
    )


def _units(strata: Sequence[np.ndarray]) -> int:
    return sum(stratum.shape[1] for stratum in strata)


def _middle(pairs: Sequence[Sequence[np.ndarray]], of: Callable[[np.ndarray], float]) -> float:
    """Of all pairs of rows, what their strata say together."""
    return float(np.median([sum(map(of, strata)) for strata in pairs]))


def _judged(
    column: Column, rows: list[TableRow], best: int, others: list[int], tests: dict[Pair, Test]
) -> Iterator[tuple[int, Cell]]:
    """The cells of a column, with the corrected tests and what follows from them."""
    corrected = _corrected(tests)
    yield best, replace(rows[best].cells[column.key], best=True)
    for place in others:
        cell = rows[place].cells[column.key]
        if (best, place) not in corrected:
            yield place, replace(cell, mark=UNTESTED)
            continue
        p_examples, p_seeds = corrected[best, place]
        yield place, replace(cell, mark=_mark(p_examples, p_seeds), p_examples=p_examples, p_seeds=p_seeds)


def _corrected(tests: Mapping[Pair, Test]) -> dict[Pair, tuple[float, float | None]]:
    """{pair: its two p}, corrected for the number of pairs."""
    by_examples = paired.corrected({pair: test.p_examples for pair, test in tests.items()})
    by_seeds = paired.corrected({pair: test.p_seeds for pair, test in tests.items() if test.p_seeds is not None})
    return {pair: (by_examples[pair], by_seeds.get(pair)) for pair in tests}


def _mark(p_examples: float, p_seeds: float | None) -> str:
    if p_examples >= LEVEL:
        return SAME
    return ALIKE if p_seeds is None or p_seeds >= LEVEL else ""


def _tests(
    parts: list[Column], variants: list[MethodVariant], loaded: Loaded, pairs: Sequence[Pair]
) -> tuple[dict[Pair, Test], dict[Pair, str]]:
    """{pair: its test} and {pair: why there is none}, of the mean of these columns, or of the one."""
    found, reasons = _pairs(parts, variants, loaded, pairs)
    for pair, own in [*found.items()]:
        try:
            paired.check_units(own, variants[pair[1]].label)
        except UserError as error:
            reasons[pair] = str(error)
            del found[pair]
    if not found:
        return {}, reasons
    by_examples = paired.by_examples(found)
    between = _between(parts, variants, dict.fromkeys(place for pair in pairs for place in pair))
    return {pair: _test(paired.strata(found[pair]), p, between(pair)) for pair, p in by_examples.items()}, reasons


def _pairs(
    parts: list[Column], variants: list[MethodVariant], loaded: Loaded, pairs: Sequence[Pair]
) -> tuple[dict[Pair, list[Paired]], dict[Pair, str]]:
    """{pair: of each of these columns what its rows have in common} and {pair: why that is nothing}"""
    found: dict[Pair, list[Paired]] = {}
    reasons: dict[Pair, str] = {}
    for better, other in pairs:
        label = variants[other].label
        try:
            if any(_read(part, variants[better]) != _read(part, variants[other]) for part in parts):
                raise UserError(f"{label}: scored on other splits")
            found[better, other] = _paired(parts, loaded, better, other, label)
        except UserError as error:
            reasons[better, other] = str(error)
    return found, reasons


def _read(column: Column, variant: MethodVariant) -> set[tuple[str, ...]]:
    """The splits that its scores are of."""
    split = column.value.split(".")[1]
    runs = (run for run in variant.runs if store.experiment(run) == column.experiment)
    return {found for run in runs if (found := cells.splits(run, split))}


def _test(strata: Sequence[np.ndarray], p_examples: float, among: Spread | None) -> Test:
    if sum(stratum.mean() for stratum in strata) <= 0:  # on the seeds that both have, the best is not better
        return Test(1.0, 1.0 if among else None)
    return Test(p_examples, significance.over_seeds(strata, among) if among else None)


def _between(
    parts: list[Column], variants: list[MethodVariant], places: Iterable[int]
) -> Callable[[Pair], Spread | None]:
    """How the difference of two of these rows moves from seed to seed: what a seed does to all rows alike is a part of it
    where one of the two is still."""
    places = [*places]
    scores = {place: _means(parts, variants[place]) for place in places}
    still = {place for place, found in scores.items() if _is_still(found)}
    beside_still = significance.spread_beside_still(
        [found for place, found in scores.items() if place not in still and len(found) > 1]
    )
    of_all = {0: _spread(parts, variants, places), 1: beside_still}
    return lambda pair: of_all.get(len(still & {*pair})) or _own_spread(parts, variants, pair)


def _spread(parts: list[Column], variants: list[MethodVariant], places: Iterable[int]) -> Spread | None:
    """Of all rows that seeds move: a still one tells nothing of others, unless they move none.  None where those are too
    few; then a pair of rows has but its own."""
    scores = [_means(parts, variants[place]) for place in places]
    return significance.spread([found for found in scores if not _is_still(found)] or scores)


def _is_still(scores: Mapping[int, float]) -> bool:
    """Whether a row has the same score at each of several seeds, as what draws nothing has."""
    return len(scores) > 1 and len(set(scores.values())) == 1


def _own_spread(parts: list[Column], variants: list[MethodVariant], pair: Pair) -> Spread | None:
    """Of two rows alone: with it the test over seeds is a paired t test, and of two that no seed moves one of examples."""
    return significance.spread([_means(parts, variants[place]) for place in pair])


def _means(parts: list[Column], variant: MethodVariant) -> dict[int, float]:
    """{seed that all parts have: their mean, as that of the scores of predictions}"""
    found = [cells.scores(part, variant.method, variant.records) for part in parts]
    return {
        seed: mean(part[seed] for part in found) / parts[0].factor
        for seed in sorted(set.intersection(*map(set, found)))
    }


def _load(loaded: Loaded, column: Column, variants: list[MethodVariant], places: Iterable[int], root: Path) -> None:
    for place in places:
        if (column.key, place) not in loaded:
            try:
                loaded[column.key, place] = _outcomes(column, variants[place], root)
            except UserError as error:
                loaded[column.key, place] = str(error)


def _outcomes(column: Column, variant: MethodVariant, root: Path) -> dict[int, Outcomes]:
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
            found[run["identity"]["seed"]] = outcomes(file, column.value.removeprefix("metrics."), run)
        except UserError as error:
            raise UserError(str(error).replace(f"{root}/", "")) from None
    return found


def _paired(parts: list[Column], loaded: Loaded, best: int, other: int, label: str) -> list[Paired]:
    """Of each of these columns.  Raises UserError where runs, seeds or examples are lacking."""
    runs = [[loaded[part.key, place] for place in (best, other)] for part in parts]
    for found in (found for of in runs for found in of):
        if isinstance(found, str):
            raise UserError(found)
    seeds = sorted(set.intersection(*(set(found) for of in runs for found in of)))
    if not seeds:
        raise UserError(f"{label}: no seed that the best has too")
    return [
        paired.pair(part.experiment, part.cluster, *of[:: -1 if part.less else 1], seeds, label)
        for part, of in zip(parts, runs, strict=True)
    ]
