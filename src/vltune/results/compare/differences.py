"""Whether two folders' scores differ by more than chance: `vltune.stats.paired` on the rows of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from vltune.errors import UserError
from vltune.records.predictions import PREDICTIONS
from vltune.records.verified import outcomes
from vltune.results.compare.model import Chance, Pair, Row, alike
from vltune.results.tables import build
from vltune.stats import significance
from vltune.stats.paired import Paired, by_examples, check_units, corrected, pair, strata


def chances(rows: Sequence[Row]) -> dict[int, Chance]:
    """{place of a row: its test}, of the rows with a seed whose shown score differs, and is of the same splits in both."""
    differing = [
        place
        for place, row in enumerate(rows)
        if not all(alike(*each.scores[row.shown]) for each in _pairs(row)) and _same_splits(row)
    ]
    paired = {place: found for place in differing if (found := _paired(rows[place]))}
    of_examples = corrected(by_examples(paired))
    of_seeds = corrected(
        {place: p for place in differing if (p := _by_seeds(rows[place], paired.get(place))) is not None}
    )
    return {place: Chance(of_examples.get(place), of_seeds.get(place)) for place in differing}


def _pairs(row: Row) -> list[Pair]:
    return [pair for pair in row.finished if row.shown in pair.scores]


def _same_splits(row: Row) -> bool:
    return all(pair.same_splits(row.shown.partition(".")[0]) for pair in _pairs(row))


def _shown(row: Row) -> dict[int, tuple[float, ...]]:
    """{seed: the shown score in A and in B, as the mean of the scores of predictions}"""
    factor = row.measured.factor if row.measured else 1.0
    return {pair.seed: tuple(score / factor for score in pair.scores[row.shown]) for pair in _pairs(row)}


def _paired(row: Row) -> list[Paired]:
    """B against A, of the shown metric, or of those that it is the mean of; empty where examples cannot be compared, and
    where they are too few."""
    split, _, name = row.shown.partition(".")
    parts = (row.measured and row.measured.mean_of) or (name,)
    try:
        found = [_of_metric(row, f"{split}.{part}") for part in parts]
        check_units(found, row.name)
        return found
    except UserError:
        return []


def _of_metric(row: Row, metric: str) -> Paired:
    """Raises UserError where a run has no predictions that can be used, or they are of other examples, or where nothing
    says what the metric is."""
    if metric.rpartition(".")[2] not in row.metrics:
        raise UserError(f"{row.name}: no record says what {metric} is")
    a, b = (
        {run.record["identity"]["seed"]: outcomes(run.beside(PREDICTIONS), metric, run.record) for run in runs}
        for runs in zip(*((each.a, each.b) for each in _pairs(row)), strict=True)
    )
    return pair(row.experiment, _cluster(row, metric), b, a, list(a), row.name)


def _cluster(row: Row, metric: str) -> int:
    """Examples whose id // cluster is equal share an image or a text: as the metric says, or a table's column, which knows
    the data set, in whichever split."""
    name = metric.rpartition(".")[2]
    return max((row.metrics[name].cluster, *(column.unit for column in build.showing(row.experiment, name))))


def _by_seeds(row: Row, paired: list[Paired] | None) -> float | None:
    """By what the seeds of this row differ, and no other: a paired t test where there are no examples."""
    scores = _shown(row)
    among = significance.spread([{seed: pair[side] for seed, pair in scores.items()} for side in (0, 1)])
    if among is None:
        return None
    if paired:
        return significance.over_seeds(strata(paired), among)
    return significance.seeds_alone(sum(b - a for a, b in scores.values()) / len(scores), len(scores), among)
