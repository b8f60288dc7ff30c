"""What a comparison of two folders of records is made of, and what its texts show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vltune.metrics.metric import Metric
from vltune.records.folders import RecordFile
from vltune.records.predictions import Agreement
from vltune.records.record import Kind
from vltune.results.tables.cells import splits

MEASURED = ("train_step_ms.median", "latency_ms.median", "throughput_per_s", "peak_memory_bytes")
"""Costs that the machine decides too."""

SPLITS = ("test", "val")

_MACHINE = ("cpu", "cores", "gpus")
"""What decides whether times may be compared; the kernel's name and a few bytes of memory do not."""
SLACK = 1e-9  # of a tolerance: 60.1 - 60.0 is a little more than 0.1


def alike(one: float, other: float) -> bool:
    """Whether two scores are equal but for the last digits of a sum."""
    return abs(one - other) <= SLACK


@dataclass(frozen=True)
class Pair:
    """The same seed of one configuration, in both folders."""

    a: RecordFile
    b: RecordFile

    @property
    def seed(self) -> int:
        return self.a.record["identity"]["seed"]

    @property
    def finished(self) -> bool:
        return self.a.finished and self.b.finished

    @property
    def scores(self) -> dict[str, tuple[float, float]]:
        """{`test.accuracy`: A's and B's, in percent}, of what both have."""
        scores_b = scores_of(self.b)
        return {name: (value, scores_b[name]) for name, value in scores_of(self.a).items() if name in scores_b}

    def same_splits(self, split: str) -> bool:
        """Whether both read the same as their `val` or `test`; else nothing tells which of their examples are the same."""
        return splits(self.a.record, split) == splits(self.b.record, split)

    @property
    def equal(self) -> bool:
        """Whether both have the same scores, but for the last digits of a sum."""
        whole = scores_of(self.a).keys() == scores_of(self.b).keys()
        return whole and all(alike(*each) for each in self.scores.values())


@dataclass(frozen=True)
class Score:
    """Means over the `n` seeds that have it in both, in percent."""

    a: float
    b: float
    n: int

    @property
    def difference(self) -> float:
        return self.b - self.a


@dataclass(frozen=True)
class Chance:
    """Two-sided p of one row's difference, corrected for the number of rows that differ (Holm).

    None: not made, for want of scored predictions of the same examples, or of a second seed; both where other splits were
    scored."""

    examples: float | None
    """That these very runs would score the same on other examples."""
    seeds: float | None
    """That other seeds, on other examples, would score the same: with few seeds it is seldom small."""


@dataclass(frozen=True)
class Row:
    """One configuration of one method, in both folders."""

    kind: Kind
    backbone: str
    experiment: str
    method: str
    hashes: tuple[str, str]
    pairs: tuple[Pair, ...]
    settings: tuple[str, ...]
    """The decisive settings that differ.  Empty too where only data or weights do: then the hashes differ."""
    scores: dict[str, Score]
    """{`test.accuracy`: its means}"""
    shown: str | None
    """Which of these a table shows."""
    metrics: dict[str, Metric]
    """What B's records say of them, by name."""
    predictions: Agreement | None
    """Of all pairs that have predictions of the same splits in both."""
    costs: dict[str, tuple[int, int]]
    """Those that a configuration decides and that differ."""
    ratios: dict[str, float]
    """Those of `MEASURED`: B's over A's, the median of the pairs that ran on the same hardware."""
    chance: Chance | None = None
    """Of the shown score, where it differs in a seed."""

    @property
    def name(self) -> str:
        return f"{self.backbone} {self.experiment} {self.method}-{'/'.join(dict.fromkeys(self.hashes))}"

    @property
    def measured(self) -> Metric | None:
        """What the shown score is, where the records say it."""
        return self.metrics.get(self.shown.partition(".")[2]) if self.shown else None

    @property
    def finished(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.finished]


@dataclass(frozen=True)
class Change:
    """A value that is another one in B, in `count` pairs."""

    name: str
    a: Any
    b: Any
    count: int


@dataclass(frozen=True)
class Comparison:
    a: Path
    b: Path
    rows: tuple[Row, ...]
    only_a: tuple[str, ...]
    """One line for each configuration, with its seeds."""
    only_b: tuple[str, ...]
    statuses: tuple[str, ...]
    provenance: tuple[Change, ...]
    notes: tuple[str, ...]
    broken: tuple[str, ...]
    """One line for each file that is no valid record, or no valid predictions."""
    kinds: frozenset[Kind] = frozenset()
    """Of the records in both folders together."""

    @property
    def pairs(self) -> list[Pair]:
        return [pair for row in self.rows for pair in row.pairs]


def scores_of(run: RecordFile) -> dict[str, float]:
    metrics = run.record["metrics"]
    return {f"{split}.{name}": value for split in SPLITS for name, value in (metrics[split] or {}).items()}


def same_machine(pair: Pair) -> bool:
    """Whether the times of both may be compared."""
    one, other = (run.record["provenance"]["hardware"] for run in (pair.a, pair.b))
    return all(name in one and one[name] == other.get(name) for name in _MACHINE)
