"""Whether methods differ: paired tests on saved predictions.  docs/statistics.md: why these, and what they cannot say.

An example that several seeds predicted is still one example, and examples of one image are one unit where their ids tell:
every test is over units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

LEVEL = 0.05
RESAMPLES = 10_000

_COUNTS = 4_000_000  # held at once, in blocks of resamples: 32 MB
_NOTHING = 1e-25  # a probability that is dropped


@dataclass(frozen=True)
class Spread:
    """How much a method's score varies between seeds."""

    variance: float
    """Of one method's score at one seed; scores from 0 to 1."""
    freedom: float


def mcnemar(differences: np.ndarray) -> float:
    """Two-sided p, exact, that the units' differences are as likely positive as negative.

    differences: (units,) int64.  Of one seed and one example a unit they are -1, 0 and 1, and this is McNemar's test in its
    exact form, a binomial one of the discordant pairs; otherwise Durkalski's (2003), made exact: signs are flipped of whole
    units."""
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    positive, start = np.ones(1), 0  # probabilities of the sum of the positive ones, from `start`
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        first, chances = _binomial(count)
        spread = np.zeros(size * (len(chances) - 1) + 1)
        spread[::size] = chances
        positive, start = np.convolve(positive, spread), start + size * first
    sums = 2 * (start + np.arange(len(positive))) - int(sizes @ counts)
    return min(1.0, float(positive[np.abs(sums) >= abs(int(differences.sum()))].sum()))


def effects(differences: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(..., units) what each unit says of the mean difference over examples, which is their mean.

    differences: (..., units) sums over a unit's examples; sizes: (units,) how many these are.  Exact where all units have
    one size, else to first order, as of any ratio."""
    means = differences.sum(-1, keepdims=True) / sizes.sum()
    return means + (differences - sizes * means) * (len(sizes) / sizes.sum())


def bootstrap(strata: Sequence[np.ndarray], resamples: int = RESAMPLES) -> np.ndarray:
    """(comparisons,) two-sided p of the paired bootstrap over units: how often a resample's difference is as far from the
    observed one as that is from zero (Efron and Tibshirani 1993, chapter 16).

    strata: (comparisons, units) effects of each set of examples that is sampled by itself; the difference is the sum of
    their means.  The resamples, the same for all comparisons, follow from the numbers of units: effects have other last
    digits on another processor."""
    draw = np.random.default_rng([stratum.shape[1] for stratum in strata])
    seen = sum(stratum.mean(1) for stratum in strata)
    resampled = sum(_resampled(stratum, draw, resamples) for stratum in strata)
    far = (np.abs(resampled - seen) >= np.abs(seen) - 1e-12).sum(0)
    return (far + 1) / (resamples + 1)


def resamples(comparisons: int) -> int:
    """So many that the smallest p, 1 / (resamples + 1), is below `LEVEL` once it is corrected for these comparisons."""
    return max(RESAMPLES, math.ceil(comparisons / LEVEL))


def spread(scores: Sequence[Mapping[int, float]]) -> Spread | None:
    """Of {seed: score} of several methods: what is left of a score once its method's mean and what a seed does to all
    of them are taken off, by least squares.  None where nothing is left to measure it by."""
    cells = [(row, seed) for row, found in enumerate(scores) for seed in found]
    seeds = sorted({seed for _, seed in cells})
    design = np.zeros((len(cells), len(scores) + len(seeds)))
    for place, (row, seed) in enumerate(cells):
        design[place, [row, len(scores) + seeds.index(seed)]] = 1.0
    values = np.array([scores[row][seed] for row, seed in cells])
    fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    freedom = len(cells) - int(rank)
    return Spread(float(((values - design @ fitted) ** 2).sum()) / freedom, freedom) if freedom else None


def spread_beside_still(scores: Sequence[Mapping[int, float]]) -> Spread | None:
    """Of {seed: score} of several methods: half of what such a score moves by from seed to seed, what a seed does to all of
    them left in, which is how a difference moves from a method that no seed moves.  None where fewer than two seeds are
    all methods'.

    The mean of the methods' own variances; as a sum of two mean squares, of seeds and of what is left, it has degrees of
    freedom by Satterthwaite."""
    seeds = sorted(set.intersection(*map(set, scores))) if scores else []
    if len(seeds) < 2:
        return None
    own = np.array([[found[seed] for seed in seeds] for found in scores])
    own -= own.mean(1, keepdims=True)
    together = own.mean(0)
    of_seeds, rest = float((together**2).sum()), float(((own - together) ** 2).sum()) / len(own)
    squares = of_seeds**2 + rest**2 / max(1, len(own) - 1)
    freedom = (len(seeds) - 1) * ((of_seeds + rest) ** 2 / squares if squares else 1.0)
    return Spread((of_seeds + rest) / (len(seeds) - 1) / 2, freedom)


def over_seeds(strata: Sequence[np.ndarray], among: Spread) -> float:
    """Two-sided p that other seeds and other examples would tell the same: a t test with both as random effects.

    strata: (seeds, units) effects of each set of examples; the difference is the sum of their means.  Its variance is that
    between seeds, of all methods together, and that between units, less what both count; degrees of freedom by
    Satterthwaite, as Hillis (2007) has them for few readers of many cases."""
    difference = sum(float(stratum.mean()) for stratum in strata)
    return _t_test(difference, sum(map(between_units, strata)), len(strata[0]), among)


def seeds_alone(difference: float, seeds: int, among: Spread) -> float:
    """The same where examples cannot be compared: other seeds on these.  difference: the mean of so many seeds'."""
    return _t_test(difference, 0.0, seeds, among)


def holm(chances: Sequence[float]) -> list[float]:
    """These p, corrected for their number (Holm 1979): the family-wise error is that at which one is compared."""
    corrected, most = [1.0] * len(chances), 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        most = max(most, min(1.0, (len(chances) - rank) * chances[place]))
        corrected[place] = most
    return corrected


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """In which the mean over all seeds lies, with 95 % confidence, by these two or more: Student's t."""
    if len(values) < 2:
        return None
    half = _t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def t_chance(t: float, freedom: float) -> float:
    """How often Student's t is as far from zero, on either side."""
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(t)))


def _t_test(difference: float, between_units: float, seeds: int, among: Spread) -> float:
    between_seeds = 2 * among.variance / seeds
    variance = between_seeds + between_units
    if not variance:
        return 0.0 if difference else 1.0
    freedom = among.freedom * (variance / between_seeds) ** 2 if between_seeds else math.inf
    return t_chance(difference / math.sqrt(variance), freedom)


def between_units(found: np.ndarray) -> float:
    """Of (seeds, units) effects: the variance of their mean that other examples would add."""
    seeds, units = found.shape
    of_unit = found.mean(0)
    variance = of_unit.var(ddof=1) / units
    if seeds > 1:
        variance -= by_single_units(found) / seeds
    return max(0.0, float(variance))


def by_single_units(found: np.ndarray) -> float:
    """Of (seeds, units) effects of several seeds: the variance of one seed's mean that comes from these units alone, as
    each says something else from seed to seed; others than these would say other things, and more of them less."""
    seeds, units = found.shape
    rest = found - found.mean(1, keepdims=True) - found.mean(0) + found.mean()
    return float((rest**2).sum() / ((seeds - 1) * (units - 1)) / units)


def _resampled(stratum: np.ndarray, draw: np.random.Generator, resamples: int) -> np.ndarray:
    """(resamples, comparisons) means of as many units, drawn with replacement."""
    units = stratum.shape[1]
    block = max(1, _COUNTS // units)
    means = np.empty((resamples, len(stratum)))
    for first in range(0, resamples, block):
        number = min(block, resamples - first)
        places = draw.integers(0, units, (number, units)) + units * np.arange(number)[:, None]
        counts = np.bincount(places.ravel(), minlength=number * units).reshape(number, units)
        means[first : first + number] = counts.astype(np.float64) @ stratum.T / units
    return means


def _t_quantile(freedom: int) -> float:
    """The t that `LEVEL` of all exceed on either side."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - LEVEL / 2))


def _binomial(count: int) -> tuple[int, np.ndarray]:
    """Probabilities of heads among `count` fair coins, from the first number that has any; far tails are dropped."""
    from scipy.special import betaln

    heads = np.arange(count + 1)
    chances = np.exp(-betaln(heads + 1, count - heads + 1) - math.log(count + 1) - count * math.log(2))
    kept = np.flatnonzero(chances > _NOTHING)
    return int(kept[0]), chances[kept[0] : kept[-1] + 1]
