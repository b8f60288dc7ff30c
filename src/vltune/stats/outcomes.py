"""What predictions say of a record's metrics, example by example and as figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vltune.metrics.metric import Metric

if TYPE_CHECKING:
    from pyarrow import ChunkedArray, Table


@dataclass(frozen=True)
class Outcomes:
    """What one run scored in one split by one metric, example by example."""

    metric: Metric
    ids: np.ndarray
    """(examples,) int64, ascending"""
    scores: np.ndarray
    """(examples,) float64; times the metric's factor their mean is the metric"""

    @property
    def figure(self) -> float:
        return self.metric.factor * float(self.scores.mean())

    @property
    def signs(self) -> bool:
        """Whether each is right or wrong, as the metric says and as they are: McNemar's test is of such."""
        return self.metric.signs and bool(((self.scores == 0) | (self.scores == 1)).all())


class Scored:
    """One split of predictions as `predictions.read` gives them.  metrics: those that the record declares, by name."""

    def __init__(self, table: Table, split: str, metrics: Mapping[str, Metric]):
        from pyarrow import compute

        self.split, self.metrics = split, metrics
        self.table = table.filter(compute.equal(table["split"], split))
        self._rows: dict[tuple, Table] = {}

    def outcomes(self, name: str) -> Outcomes:
        """The examples behind a metric.  Raises ValueError where one has no score or stands twice, where there is none, and
        for a metric that is no mean over examples."""
        metric = self.metrics.get(name)
        if metric is None or not metric.by_example or (rows := self.behind(metric)) is None:
            raise ValueError(f"{name} is no mean over examples")
        if (missing := rows["score"].null_count) == rows.num_rows:
            raise ValueError(f"no scored example of {self.split}")
        if missing:
            raise ValueError(f"{missing} of {rows.num_rows} examples of {self.split} have no score")
        ids = rows["id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        if (twice := ids[1:][ids[1:] == ids[:-1]]).size:
            raise ValueError(f"{twice.size} examples of {self.split} stand there twice, such as {twice[0]}")
        return Outcomes(metric, ids, metric.outcomes(rows["score"].to_numpy())[order])

    def figure(self, name: str) -> float | None:
        """A metric by those of its examples that have a score; None where it does not follow from them."""
        metric = self.metrics.get(name)
        if metric is None:
            return None
        if metric.made_of:
            return metric.of_others({part: self.figure(part) for part in metric.made_of})
        if (rows := self.behind(metric)) is None:
            return None
        if rows["score"].null_count:
            rows = rows.filter(rows["score"].is_valid())
        if not rows.num_rows:
            return None
        groups = metric.grouped
        return metric.figure(rows["score"].to_numpy(), rows[groups].to_pylist() if groups else ())

    def behind(self, metric: Metric) -> Table | None:
        """The rows that a metric is made of, with a score or without; None where a column is lacking that tells them."""
        if not set(metric.columns) <= set(self.table.column_names):
            return None
        key = tuple(sorted(metric.rows.items())), metric.of_those_with
        if key not in self._rows:
            self._rows[key] = self._filtered(metric)
        return self._rows[key]

    def _filtered(self, metric: Metric) -> Table:
        from pyarrow import compute

        rows = self.table
        for column, value in metric.rows.items():
            rows = rows.filter(_equal(rows[column], value))
        return rows.filter(compute.is_valid(rows[name])) if (name := metric.of_those_with) else rows


def _equal(column: ChunkedArray, value: Any) -> ChunkedArray:
    from pyarrow import compute

    return compute.is_null(column) if value is None else compute.fill_null(compute.equal(column, value), False)
