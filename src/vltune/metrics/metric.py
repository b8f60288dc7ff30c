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
    mean_of: tuple[str, ...] = ()
    """No rows: the mean of these metrics."""
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
        return not (self.mean_of or self.every or self.parts)

    @property
    def columns(self) -> list[str]:
        """Beside id, prediction and score, those that it reads."""
        return [*self.rows, *filter(None, (self.every, self.parts))]

    def beats(self, figure: float, other: float) -> bool:
        return figure > other if self.better == "more" else figure < other

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is one of its rows, with a score or without."""
        if self.parts and row.get(self.parts) is None:
            return False
        return not self.mean_of and all(row.get(column) == value for column, value in self.rows.items())

    def outcomes(self, scores: np.ndarray) -> np.ndarray:
        """(rows,) float64: what each adds to the mean.  scores: (rows,) of its rows"""
        import numpy as np

        if self.within is None:
            return scores.astype(np.float64)
        with np.errstate(divide="ignore"):
            return (np.rint(1 / scores) <= self.within).astype(np.float64)

    def figure(self, scores: np.ndarray, groups: Sequence[Any] = ()) -> float:
        """scores: (rows,) of its rows, at least one.  groups: of each row, the value in `every` or `parts`."""
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

    def declaration(self) -> dict[str, Any]:
        """As JSON: the fields that are not their default."""
        plain = asdict(self) | {"mean_of": list(self.mean_of), "rows": dict(self.rows)}
        default = asdict(Metric(self.name)) | {"mean_of": [], "rows": {}}
        return {key: value for key, value in plain.items() if key == "name" or value != default[key]}


def declared(record: Mapping[str, Any]) -> dict[str, Metric]:
    """{name: metric} that a record carries; nothing of one from before records carried them."""
    return {
        each["name"]: Metric(**each | {"mean_of": tuple(each.get("mean_of", ()))}) for each in record.get("scores", ())
    }


def primary(metrics: Iterable[Metric]) -> Metric | None:
    return next((metric for metric in metrics if metric.primary), None)


def figures(metrics: Iterable[Metric], rows: Sequence[Prediction]) -> dict[str, float]:
    """{name: figure} of the metrics that have rows with a score; those that are means of others stand after these."""
    import numpy as np

    found: dict[str, float] = {}
    for metric in metrics:
        if metric.mean_of:
            if set(metric.mean_of) <= found.keys():
                found[metric.name] = sum(found[part] for part in metric.mean_of) / len(metric.mean_of)
            continue
        own = [row for row in rows if row["score"] is not None and metric.takes(row)]
        if own:
            groups = [row[metric.every or metric.parts] for row in own] if metric.every or metric.parts else ()
            found[metric.name] = metric.figure(np.array([row["score"] for row in own]), groups)
    return found


def of_examples(metrics: Iterable[Metric], rows: Iterable[Prediction]) -> list[Prediction]:
    """The rows that say something of an example, and repeat nothing within a part of the split, in their order."""
    each = [metric for metric in metrics if metric.by_example]
    return [row for row in rows if any(metric.takes(row) for metric in each)]
