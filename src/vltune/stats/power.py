"""What a comparison of methods can tell: the smallest difference that its test over seeds and examples finds four times in
five, and how many examples and seeds would find a smaller one.  docs/statistics.md: Power."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from vltune.stats.significance import LEVEL, Spread

POWER = 0.8
MOST_SEEDS = 1000
_TIMES = (*(2.0**power for power in range(-30, 61)), math.inf)  # as many examples, from few to any number


@dataclass(frozen=True)
class Noise:
    """What moves the difference of two methods.

    between_units: the variance that others than these `units` would add to it.  among: how much a method's score varies
    between seeds, as measured on so many `seeds` of so many `methods`; by_single_units: the part of it that is answers to
    single units which turn from seed to seed, and so is less with more of them (at most all)."""

    between_units: float
    units: int
    among: Spread
    by_single_units: float
    seeds: int
    methods: int

    def of(self, seeds: int, times: float) -> tuple[float, float]:
        """The difference's variance, and its degrees of freedom (Satterthwaite), with so many seeds and with `times` as
        many examples."""
        by_single_units = min(self.by_single_units, self.among.variance)
        among = self.among.variance - by_single_units + by_single_units / times
        between_seeds, freedom = 2 * among / seeds, self.freedom(seeds)
        variance = between_seeds + self.between_units / times
        return variance, freedom * (variance / between_seeds) ** 2 if between_seeds else math.inf

    def freedom(self, seeds: int) -> float:
        """Of the variance between seeds, which grows with those that it is measured by."""
        return self.among.freedom * (seeds - 1) / (self.seeds - 1)


def detectable(noise: Noise, seeds: int, times: float = 1.0, comparisons: int = 1) -> float:
    """The true difference that is told with `POWER`, at `LEVEL` over so many comparisons (Bonferroni: Holm's first)."""
    from scipy.special import nctdtrinc, ndtri, stdtrit

    variance, freedom = noise.of(seeds, times)
    tail = 1 - LEVEL / 2 / comparisons
    if not math.isfinite(freedom) or freedom > 1e6:
        return float(ndtri(tail) + ndtri(POWER)) * math.sqrt(variance)
    return float(nctdtrinc(freedom, 1 - POWER, stdtrit(freedom, tail))) * math.sqrt(variance)


def times_needed(noise: Noise, difference: float, seeds: int, comparisons: int = 1) -> float | None:
    """How many times as many examples tell this difference, at least; None where none would do, as seeds move it more.

    More examples may also tell less: where few runs say how much seeds vary, examples of which more is known hold up the
    degrees of freedom."""

    def told(times: float) -> float:
        return detectable(noise, seeds, times, comparisons)

    def enough(times: float) -> bool:
        return told(times) <= difference

    low, high = 1e-9, min(_TIMES, key=told)
    if not enough(high):
        return None
    if math.isinf(high):
        high = next(filter(enough, _TIMES))
    while math.isfinite(high) and high / low > 1 + 1e-6:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def seeds_needed(noise: Noise, difference: float, comparisons: int = 1) -> int | None:
    """The fewest seeds that tell this difference; None where `MOST_SEEDS` do not, as examples move it more."""
    return _fewest(lambda seeds: detectable(noise, seeds, comparisons=comparisons) <= difference)


def least_seeds(noise: Noise, difference: float, comparisons: int = 1) -> int | None:
    """The same where any number of examples may be taken."""
    return _fewest(lambda seeds: times_needed(noise, difference, seeds, comparisons) is not None)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
