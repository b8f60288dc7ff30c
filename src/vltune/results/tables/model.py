"""What a table is made of, and what the renderers and the figure show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vltune.catalogue import PAPER, Presentation
from vltune.metrics.metric import Metric
from vltune.records.record import is_counted

SEEDS = (0, 1, 2)
"""What each cell should rest on, at least."""
TYPED = "†"
"""Stands at what a person typed."""
MIXED = "‡"
"""Stands at what runs on several machines gave, where these may round otherwise or take other times."""
SAME = "="
"""At a score that the tests over examples do not tell from its column's best: these very models may be equally good."""
ALIKE = "≈"
"""At one that they tell from it, but not once seeds are taken into account: the methods may be equally good."""
UNTESTED = "?"
"""At one that was not tested, in a column where others were."""


@dataclass(frozen=True)
class ListedRows:
    """Which rows a table has at least, with records or without: one for each of these values of a record's dotted field."""

    field: str = "identity.method"
    values: tuple[str, ...] = ()
    """None: the methods of `family`."""
    method: str | None = None
    """Whose rows these are, where the field does not tell."""
    family: str = PAPER


@dataclass(frozen=True)
class Column:
    """One column.  `title` holds the unit; `value` is a record's dotted field, divided by `scale`."""

    key: str
    title: str
    experiment: str
    value: str = ""
    value_for: dict[str, str] | None = None
    """{method: field}, where a method's value is another field than `value`."""
    mean_of: tuple[str, ...] = ()
    """Instead of `value`: for each seed that all of these earlier columns have, their mean."""
    harmonic_of: tuple[str, ...] = ()
    """Likewise, their harmonic mean, which is not tested."""
    ppt: str | None = None
    """Instead of `value`: V-PETL Bench's trade-off of this earlier column's score and the parameters (`cells.ppt`)."""
    scale: float = 1.0
    digits: int = 2
    unit: int = 1
    """Examples whose id // unit is equal share an image or a text, in this data set: the tests take them as one, or what
    the metric says of any data set."""
    published: str | None = None
    relative: bool = False
    """Whether a difference from the published number is shown in percent of it."""
    essential: bool = True
    """Whether it is shown where room is short: in a terminal and on a page (LaTeX)."""
    short: str | None = None
    """The heading there, where `title` is too long."""
    external: str | None = None
    """The name under which a person may type the value of a run whose record holds none (records/external.py)."""

    metric: Metric | None = None
    """What its records say of it (`declared`), where it is the score of a task, or the mean of such."""

    @property
    def less(self) -> bool:
        """Whether less is better."""
        return self.metric is not None and self.metric.better == "less"

    @property
    def factor(self) -> float:
        """By which a mean over predictions is multiplied."""
        return self.metric.factor if self.metric else 100.0

    @property
    def cluster(self) -> int:
        return max(self.unit, self.metric.cluster if self.metric else 1)

    @property
    def is_score(self) -> bool:
        return self.is_measured or bool(self.made_of or self.ppt)

    @property
    def made_of(self) -> tuple[str, ...]:
        """The columns that it is a mean of."""
        return self.mean_of or self.harmonic_of

    @property
    def is_measured(self) -> bool:
        """Whether it is the score of one task itself, which predictions stand behind."""
        return self.value.startswith("metrics.")

    @property
    def name(self) -> str:
        return self.short or self.title

    @property
    def is_counted(self) -> bool:
        """Whether it is a setting, or a cost that a configuration decides: one number, no mean."""
        where, _, field = self.value.partition(".")
        return where == "config" or (where == "cost" and is_counted(field))

    def field(self, method: str) -> str:
        return (self.value_for or {}).get(method, self.value)


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation (ddof=1) over `n` seeds, in the column's unit; None where there is none."""

    mean: float | None = None
    std: float | None = None
    n: int = 0
    published: float | None = None
    typed: int = 0
    """Of how many of the seeds a person typed it, or a part of it."""
    interval: tuple[float, float] | None = None
    """95 %, of a score's mean over seeds (Student's t); None of fewer than two."""
    rounding: float = 0.0
    """Half a unit of the last digit that the column shows."""
    best: bool = False
    """Whether it is the best of its column, and others were tested against it."""
    mark: str = ""
    """`SAME`, `ALIKE`, `UNTESTED`, or nothing: told from the best, or no test was to be made."""
    p_examples: float | None = None
    """Of the test over examples against the best, corrected for the column's comparisons."""
    p_seeds: float | None = None
    """Of the test over seeds as well, likewise."""
    machines: int = 1
    """How many gave it, as far as it may depend on them."""
    reason: str = ""
    """Why a score is not there."""

    @property
    def difference(self) -> float | None:
        """Ours less the published number."""
        return None if self.mean is None or self.published is None else self.mean - self.published

    @property
    def agrees(self) -> bool | None:
        """Whether the published number, which was rounded, may lie in our interval."""
        if self.interval is None or self.published is None:
            return None
        low, high = self.interval
        return low - self.rounding <= self.published <= high + self.rounding


@dataclass(frozen=True)
class TableRow:
    """One configuration of one method."""

    method: str
    presentation: Presentation
    label: str
    hashes: tuple[str, ...]
    cells: dict[str, Cell]
    trials: int | None = None
    """How many learning rates were tried for the method; None where no search is on record."""
    shape: int = 0
    """Its place among the rows of its colour, from which the shape of its mark tells it."""


@dataclass(frozen=True)
class Table:
    """What the renderers and the figure show."""

    name: str
    title: str
    backbone: str
    folder: Path
    """Where its records lie."""
    records: tuple[dict, ...]
    """All that are valid there, as `store.load` gives them; other tables' too."""
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
    unfinished: tuple[str, ...]
    """One line for each failed, interrupted or running run: status, run, reason, file."""
    broken: tuple[str, ...]
    """One line for each file of the table's folders that is no valid record, or no valid predictions of one."""
    figure: dict
    """{score: column key, against: [column key, column key]}, and where that tells more along:
    [column key, ...] for a line of each row, or by_row: true for the rows below each other."""
    missing: tuple[str, ...] = ()
    """Commands that make the runs which are not there."""

    def column(self, key: str) -> Column:
        return next(column for column in self.columns if column.key == key)
