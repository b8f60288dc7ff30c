"""What predictions say of a record's metrics, example by example and in percent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pyarrow import Table

MEANS = {"r1": ("ir_r1", "tr_r1"), "r1_1k": ("ir_r1_1k", "tr_r1_1k")}
"""Of which metrics another is the mean."""
FOLD = ", fold "
"""In retrieval, of predictions that repeat others within a part of the split."""
BY_EXAMPLE = ("vqa_score", "accuracy", "ir_r1", "tr_r1")
"""Metrics behind which, between them, all rows stand that are no fold's."""
_RECALL = re.compile(r"(ir|tr)_r(\d{1,9})(_1k)?")
_RETRIEVED = {"ir": "image", "tr": "caption"}


@dataclass(frozen=True)
class Outcomes:
    """What one run scored in one split by one metric, example by example."""

    ids: np.ndarray
    """(examples,) int64, ascending"""
    scores: np.ndarray
    """(examples,) float64, 0 to 1; in percent their mean is the metric"""

    @property
    def percent(self) -> float:
        return 100 * float(self.scores.mean())


class Scored:
    """One split of predictions as `predictions.read` gives them.

    Retrieval's rows hold 1 / the place of the true match; the accuracies' and VQA's hold the score itself."""

    def __init__(self, table: Table, name: str):
        from pyarrow import compute

        self.name = name
        self.table = table.filter(compute.equal(table["split"], name))
        self._rows: dict[tuple[str, bool], Table] = {}

    def outcomes(self, metric: str) -> Outcomes:
        """The examples behind a metric.  Raises ValueError where one has no score or stands twice, where there is none, and
        for a metric that is no mean over examples."""
        if metric.endswith("_1k") or (rows := self._behind(metric)) is None:
            raise ValueError(f"{metric} is no mean over examples")
        if (missing := rows["score"].null_count) == rows.num_rows:
            raise ValueError(f"no scored example of {self.name}")
        if missing:
            raise ValueError(f"{missing} of {rows.num_rows} examples of {self.name} have no score")
        ids = rows["id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        if (twice := ids[1:][ids[1:] == ids[:-1]]).size:
            raise ValueError(f"{twice.size} examples of {self.name} stand there twice, such as {twice[0]}")
        return Outcomes(ids, _scores(rows, metric)[order])

    def percent(self, metric: str) -> float | None:
        """A metric by those of its examples that have a score; None where it does not follow from them."""
        if parts := [self.percent(part) for part in MEANS.get(metric, ())]:
            return None if None in parts else fmean(parts)
        if (rows := self._behind(metric)) is None:
            return None
        if rows["score"].null_count:
            rows = rows.filter(rows["score"].is_valid())
        if not rows.num_rows:
            return None
        scores = _scores(rows, metric)
        if not metric.endswith("_1k"):
            return 100 * float(scores.mean())
        folds = np.array([text.rpartition(FOLD)[2] for text in rows["prediction"].to_pylist()])
        return 100 * fmean(scores[folds == fold].mean() for fold in np.unique(folds))

    def _behind(self, metric: str) -> Table | None:
        """The rows that a metric is made of; None where these cannot be told."""
        recall = _RECALL.fullmatch(metric)
        if not recall:
            return self.table if metric in BY_EXAMPLE else None
        key = _RETRIEVED[recall[1]], bool(recall[3])
        if key not in self._rows:
            self._rows[key] = self._retrieved(*key)
        return self._rows[key]

    def _retrieved(self, what: str, by_fold: bool) -> Table:
        from pyarrow import compute

        way = compute.starts_with(self.table["prediction"], f"{what} ")
        in_fold = compute.match_substring(self.table["prediction"], FOLD)
        return self.table.filter(compute.and_(way, in_fold if by_fold else compute.invert(in_fold)))


def _scores(rows: Table, metric: str) -> np.ndarray:
    scores = rows["score"].to_numpy()
    if recall := _RECALL.fullmatch(metric):
        with np.errstate(divide="ignore"):
            scores = np.rint(1 / scores) <= int(recall[2])
    return scores.astype(np.float64)
