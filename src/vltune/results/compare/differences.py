"""Whether two folders' scores differ by more than chance: `vltune.stats.significance` on the rows of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vltune.errors import UserError
from vltune.records.predictions import PREDICTIONS
from vltune.results.tables import build
from vltune.results.tables.marks import Paired
from vltune.stats import significance
from vltune.stats.outcomes import MEANS

if TYPE_CHECKING:
    from vltune.results.compare.match import Pair, Row


@dataclass(frozen=True)
class Chance:
    """Two-sided p of one row's difference, corrected for the number of rows that differ (Holm).

    None: not made, for want of scored predictions of the same examples, or of a second seed."""

    examples: float | None
    """That these very runs would score the same on other examples."""
    seeds: float | None
    """That other seeds, on other examples, would score the same: with few seeds it is seldom small."""


def chances(rows: Sequence[Row]) -> dict[int, Chance]:
    """{place of a row: its test}, of the rows with a seed whose shown score differs."""
    differing = [place for place, row in enumerate(rows) if any(one != other for one, other in _shown(row).values())]
    paired = {place: found for place in differing if (found := _paired(rows[place]))}
    by_examples = _corrected(dict(_by_examples(rows, paired)))
    by_seeds = _corrected(
        {place: p for place in differing if (p := _by_seeds(rows[place], paired.get(place))) is not None}
    )
    return {place: Chance(by_examples.get(place), by_seeds.get(place)) for place in differing}


def _corrected(found: dict[int, float]) -> dict[int, float]:
    return dict(zip(found, significance.holm(list(found.values())), strict=True))


def _pairs(row: Row) -> list[Pair]:
    return [pair for pair in row.finished if row.shown in pair.scores]


def _shown(row: Row) -> dict[int, tuple[float, ...]]:
    """{seed: the shown score in A and in B, from 0 to 1}"""
    return {pair.seed: tuple(score / 100 for score in pair.scores[row.shown]) for pair in _pairs(row)}


def _paired(row: Row) -> list[Paired]:
    """B against A, of the shown metric, or of those that it is the mean of; empty where examples cannot be compared."""
    split, _, name = row.shown.partition(".")
    try:
        return [_of_metric(row, f"{split}.{part}") for part in MEANS.get(name, (name,))]
    except UserError:
        return []


def _of_metric(row: Row, metric: str) -> Paired:
    """Raises UserError where a run has no predictions that can be used, or they are of other examples."""
    found = []
    for pair in _pairs(row):
        a, b = (significance.outcomes(run.beside(PREDICTIONS), metric, run.record) for run in (pair.a, pair.b))
        if not found:
            ids = a.ids
            labels, units = np.unique(ids // _unit(row.experiment, metric), return_inverse=True)
        for outcome, run in ((a, pair.a), (b, pair.b)):
            if not np.array_equal(ids, outcome.ids):
                raise UserError(f"{run.file}: its predictions are of other examples")
        found.append(np.bincount(units, b.scores - a.scores))
    return Paired(labels, np.bincount(units).astype(np.float64), np.stack(found))


def _unit(experiment: str, metric: str) -> int:
    """Examples whose id // unit is equal share an image or a text: as a table's column has it, in whichever split."""
    name = metric.rpartition(".")[2]
    columns = [column for column in build.columns() if column.experiment == experiment]
    return max((column.unit for column in columns if column.value.rpartition(".")[2] == name), default=1)


def _strata(paired: Sequence[Paired]) -> list[np.ndarray]:
    """(seeds, units) effects, one for each set of images: both ways of retrieval have one."""
    strata: dict[bytes, np.ndarray] = {}
    for each in paired:
        effects = significance.effects(each.differences, each.sizes) / len(paired)
        images = each.labels.tobytes()
        strata[images] = strata[images] + effects if images in strata else effects
    return list(strata.values())


def _by_examples(rows: Sequence[Row], paired: dict[int, list[Paired]]) -> Iterator[tuple[int, float]]:
    """McNemar's test of accuracies; of other scores the paired bootstrap, whose resamples rows of the same units share."""
    alike: dict[tuple, list[int]] = {}
    for place, found in paired.items():
        if rows[place].shown.endswith(".accuracy"):
            yield place, significance.mcnemar(np.rint(found[0].differences.sum(0)).astype(np.int64))
        else:
            alike.setdefault(tuple(each.labels.tobytes() for each in found), []).append(place)
    for places in alike.values():
        averaged = [[stratum.mean(0) for stratum in _strata(paired[place])] for place in places]
        chances = significance.bootstrap([np.stack(stratum) for stratum in zip(*averaged, strict=True)])
        yield from zip(places, chances.tolist(), strict=True)


def _by_seeds(row: Row, paired: list[Paired] | None) -> float | None:
    """By what the seeds of this row differ, and no other: a paired t test where there are no examples."""
    scores = _shown(row)
    among = significance.spread([{seed: pair[side] for seed, pair in scores.items()} for side in (0, 1)])
    if among is None:
        return None
    if paired:
        return significance.over_seeds(_strata(paired), among)
    return significance.seeds_alone(sum(b - a for a, b in scores.values()) / len(scores), len(scores), among)
