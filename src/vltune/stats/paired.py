"""One model against another on the same examples: the paired tests of tables and of `vltune compare`.

docs/statistics.md: which test is made of what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from vltune.errors import UserError
from vltune.stats import significance
from vltune.stats.outcomes import Outcomes

FEWEST = 10
"""Units that a bootstrap is made of, at least: of fewer it is too easy (docs/statistics.md)."""

Name = TypeVar("Name")
"""Of a comparison among several."""


@dataclass(frozen=True)
class Paired:
    """By how much one scores more than another, of the seeds that both have."""

    source: str
    """Of which examples: units of different sources are different ones, whatever their labels."""
    labels: np.ndarray
    """(units,) what tells the units apart"""
    sizes: np.ndarray
    """(units,) how many examples each has"""
    differences: np.ndarray
    """(seeds, units) float64, summed over a unit's examples"""
    signs: bool = False
    """Whether every example is right or wrong."""

    @property
    def units(self) -> tuple[str, bytes]:
        return self.source, self.labels.tobytes()


def pair(
    source: str, unit: int, more: Mapping[int, Outcomes], less: Mapping[int, Outcomes], seeds: Sequence[int], label: str
) -> Paired:
    """more, less: {seed: its outcomes}; what the first scores less the second, of these `seeds`.

    label: names the pair in errors.  unit: examples whose id // unit is equal share an image or a text.  Raises UserError
    where a seed has other examples than the first, and where all examples are one unit."""
    ids = more[seeds[0]].ids
    labels, units = np.unique(ids // unit, return_inverse=True)
    if other := [seed for seed in seeds if not all(np.array_equal(ids, of[seed].ids) for of in (more, less))]:
        raise UserError(f"{label}: seed {other[0]} has other examples")
    if len(labels) < 2:
        raise UserError("all examples share one image or text, so that there is nothing to test by")
    differences = [np.bincount(units, more[seed].scores - less[seed].scores) for seed in seeds]
    signs = all(of[seed].signs for of in (more, less) for seed in seeds)
    return Paired(source, labels, np.bincount(units).astype(np.float64), np.stack(differences), signs)


def check_units(parts: Sequence[Paired], label: str) -> None:
    """Raises UserError, which begins with `label`, where the test of these parts' mean is no exact one and a part has fewer
    than `FEWEST` units."""
    fewest = min(len(part.labels) for part in parts)
    if fewest < FEWEST and not _is_exact(parts):
        raise UserError(f"{label}: few units ({fewest}), of which the bootstrap needs {FEWEST}")


def strata(parts: Sequence[Paired]) -> list[np.ndarray]:
    """(seeds, units) effects on the mean of these parts, one for each set of units: parts of the same units share one."""
    found: dict[tuple[str, bytes], np.ndarray] = {}
    for part in parts:
        effects = significance.effects(part.differences, part.sizes) / len(parts)
        found[part.units] = found[part.units] + effects if part.units in found else effects
    return list(found.values())


def by_examples(comparisons: Mapping[Name, Sequence[Paired]], signs: bool = True) -> dict[Name, float]:
    """{comparison: two-sided p that the same models score the same on other examples}, each of the mean of its parts.

    signs: whether McNemar's test is made where all that is compared is right or wrong; else the paired bootstrap, whose
    resamples comparisons of the same units share."""
    alike: dict[tuple, list[Name]] = {}
    found, resamples = {}, significance.resamples(len(comparisons))
    for place, parts in comparisons.items():
        if signs and _is_exact(parts):
            found[place] = significance.mcnemar(parts[0].differences.sum(0).astype(np.int64))
        else:
            alike.setdefault(tuple(part.units for part in parts), []).append(place)
    for places in alike.values():
        averaged = [[stratum.mean(0) for stratum in strata(comparisons[place])] for place in places]
        chances = significance.bootstrap([np.stack(stratum) for stratum in zip(*averaged, strict=True)], resamples)
        found |= dict(zip(places, chances.tolist(), strict=True))
    return {place: found[place] for place in comparisons}


def corrected(chances: Mapping[Name, float]) -> dict[Name, float]:
    """{comparison: its p}, corrected for their number (Holm)."""
    return dict(zip(chances, significance.holm(list(chances.values())), strict=True))


def _is_exact(parts: Sequence[Paired]) -> bool:
    """Whether McNemar's test can be made of them, which is exact with any number of units."""
    return len(parts) == 1 and parts[0].signs
