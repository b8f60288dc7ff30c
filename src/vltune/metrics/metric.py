"""What a score is: a task declares its metrics here, and each travels with the record (`scores`).

Tables, comparisons, tests, the page and the loggers ask the record; none of them knows a metric by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import numpy as np

PERCENT = "%"
MEANS = ("mean_of", "harmonic_of")
"""The fields of a metric that name others."""
BINS = 15
"""Of confidences, as calibration is commonly measured."""


class Prediction(TypedDict, total=False):
    """One row of a split's predictions; beside these keys those columns that the task declares."""

    id: int
    """Of the example."""
    prediction: str
    """As text, which the data set's examples can show."""
    score: float | None
    """0 to 1 where the metric is in percent, else in the metric's unit; None where the truth is unknown."""


@dataclass(frozen=True)
class Metric:
    """name: of the figure, as a record has it.  The figure is the mean of its rows' scores, unless a field says otherwise.

    Which rows: all that have a score, and whose columns have the values of `rows`."""

    name: str
    unit: str = PERCENT
    """`%`: figures are 100 times the mean of scores from 0 to 1.  Any other: the mean itself."""
    better: Literal["more", "less"] = "more"
    primary: bool = False
    """Whether checkpoints and rates are chosen by it, and comparisons show it: one metric of a task."""
    rows: Mapping[str, str | int | None] = field(default_factory=dict, hash=False)
    """{column: the value that its rows have there}"""
    within: int | None = None
    """The share of rows whose score is 1 / `within` or more: the true match is among so many."""
    every: str | None = None
    """The share of groups of rows, equal in this column, of which every row is right."""
    parts: str | None = None
    """The mean over the parts of a split, rows that are equal in this column; of rows that have a value there."""
    calibration: str | None = None
    """The expected calibration error (`calibration_error`): how far shares of right rows lie from the confidences, from 0
    to 1, in this column."""
    correlation: str | None = None
    """Spearman's rank correlation, -1 to 1, of the scores with the numbers in this column; of rows that have one.  Not in
    percent, which is never below 0."""
    mean_of: tuple[str, ...] = ()
    """No rows: the mean of these metrics."""
    harmonic_of: tuple[str, ...] = ()
    """No rows: the harmonic mean of these metrics, which no test over examples is of."""
    cluster: int = 1
    """Rows whose id // cluster is equal share an image or a text: the tests take them as one."""
    signs: bool = False
    """Whether a row is right or wrong, 1 or 0: McNemar's test is made, else the bootstrap."""
    right: float = 1.0
    """The score from which a row counts as right, for people to look at."""
    title: str = ""
    """What is predicted, where a task predicts several things."""

    @property
    def factor(self) -> float:
        """What a mean of scores is multiplied by to have the unit."""
        return 100.0 if self.unit == PERCENT else 1.0

    @property
    def by_example(self) -> bool:
        """Whether it is a mean over rows, one an example."""
        return not (self.made_of or self.grouped)

    @property
    def made_of(self) -> tuple[str, ...]:
        """The metrics that it is a mean of."""
        return self.mean_of or self.harmonic_of

    @property
    def grouped(self) -> str | None:
        """The column whose values its figure is made of beside the scores."""
        return self.every or self.parts or self.calibration or self.correlation

    @property
    def of_those_with(self) -> str | None:
        """The column in which all of its rows have a value."""
        return self.parts or self.correlation

    @property
    def columns(self) -> list[str]:
        """Beside id, prediction and score, those that it reads."""
        return [*self.rows, *filter(None, (self.grouped,))]

    def beats(self, figure: float, other: float) -> bool:
        return figure > other if self.better == "more" else figure < other

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is one of its rows, with a score or without."""
        if self.of_those_with and row.get(self.of_those_with) is None:
            return False
        return not self.made_of and all(row.get(column) == value for column, value in self.rows.items())

    def outcomes(self, scores: np.ndarray) -> np.ndarray:
        """(rows,) float64: what each adds to the mean.  scores: (rows,) of its rows"""
        import numpy as np

        if self.within is None:
            return scores.astype(np.float64)
        with np.errstate(divide="ignore"):
            return (np.rint(1 / scores) <= self.within).astype(np.float64)

    def figure(self, scores: np.ndarray, groups: Sequence[Any] = ()) -> float:
        """scores: (rows,) of its rows, at least one.  groups: of each row, the value in `grouped`."""
        if self.calibration:
            return self.factor * calibration_error(groups, self.outcomes(scores))
        if self.correlation:
            return self.factor * rank_correlation(scores, groups)
        outcomes = self.outcomes(scores).tolist()
        if self.every or self.parts:
            found: dict[Any, list[float]] = {}
            for group, outcome in zip(groups, outcomes, strict=True):
                found.setdefault(group, []).append(outcome)
            means = [float(all(of)) if self.every else sum(of) / len(of) for of in found.values()]
        elif self.within:
            means = [sum(outcomes) / len(outcomes)]
        else:
            return self.factor * sum(outcomes) / len(outcomes)
        return self.factor * sum(means) / len(means) if self.every else self.factor * (sum(means) / len(means))

    def of_others(self, figures: Mapping[str, float]) -> float | None:
        """What it is of those that it is a mean of; None where one is lacking."""
        found = [figures.get(part) for part in self.made_of]
        if None in found:
            return None
        if self.harmonic_of:
            return len(found) / sum(1 / figure for figure in found) if all(found) else 0.0
        return sum(found) / len(found)

    def declaration(self) -> dict[str, Any]:
        """As JSON: the fields that are not their default."""
        plain = asdict(self) | {name: list(getattr(self, name)) for name in MEANS} | {"rows": dict(self.rows)}
        default = asdict(Metric(self.name)) | {name: [] for name in MEANS} | {"rows": {}}
        return {key: value for key, value in plain.items() if key == "name" or value != default[key]}


def calibration_error(confidences: Sequence[float], right: np.ndarray) -> float:
    """The expected calibration error (Naeini et al. 2015; of networks, Guo et al. 2017, arXiv 1706.04599, eq. 3): over
    `BINS` equally wide bins of confidence, the mean distance of a bin's share of right ones from its mean confidence.

    confidences: (examples,) from 0 to 1; right: (examples,) 0 to 1."""
    import numpy as np

    confidences = np.asarray(confidences, np.float64)
    bins = np.clip(np.ceil(confidences * BINS).astype(int) - 1, 0, BINS - 1)
    return float(np.abs(np.bincount(bins, right - confidences, minlength=BINS)).sum() / len(right))


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, equal numbers sharing the mean of their ranks; 0 where one of both is the same throughout."""
    import numpy as np

    ranked = []
    for numbers in (one, other):
        _, places, counts = np.unique(np.asarray(numbers, np.float64), return_inverse=True, return_counts=True)
        ranks = (counts.cumsum() - (counts - 1) / 2)[places]
        ranked.append(ranks - ranks.mean())
    size = float(np.prod([np.linalg.norm(ranks) for ranks in ranked]))
    return float(np.clip(ranked[0] @ ranked[1] / size, -1, 1)) if size else 0.0


def declared(record: Mapping[str, Any]) -> dict[str, Metric]:
    """{name: metric} that a record carries; nothing of one from before records carried them."""
    return {
        each["name"]: Metric(**each | {name: tuple(each.get(name, ())) for name in MEANS})
        for each in record.get("scores", ())
    }


def primary(metrics: Iterable[Metric]) -> Metric | None:
    return next((metric for metric in metrics if metric.primary), None)


def figures(metrics: Iterable[Metric], rows: Sequence[Prediction]) -> dict[str, float]:
    """{name: figure} of the metrics that have rows with a score; those that are means of others stand after these."""
    import numpy as np

    found: dict[str, float] = {}
    for metric in metrics:
        if metric.made_of:
            if (figure := metric.of_others(found)) is not None:
                found[metric.name] = figure
            continue
        own = [row for row in rows if row["score"] is not None and metric.takes(row)]
        if own:
            groups = [row[metric.grouped] for row in own] if metric.grouped else ()
            found[metric.name] = metric.figure(np.array([row["score"] for row in own]), groups)
    return found


def of_examples(metrics: Iterable[Metric], rows: Iterable[Prediction]) -> list[Prediction]:
    """The rows that say something of an example, and repeat nothing within a part of the split, in their order."""
    each = [metric for metric in metrics if metric.by_example]
    return [row for row in rows if any(metric.takes(row) for metric in each)]
