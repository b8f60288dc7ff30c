"""A record with the predictions beside it: whether they give its scores, and example by example."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vltune.errors import UserError
from vltune.records import predictions
from vltune.records.files import is_there
from vltune.records.predictions import PREDICTIONS

if TYPE_CHECKING:
    from vltune.stats.outcomes import Outcomes

AGREES = 0.01  # percentage points between a record's score and that of its predictions, which are float32


def check(record: dict, file: Path) -> str:
    """What is wrong with the predictions beside the valid `record` in `file`; nothing where there are none.

    Raises UserError where they give another score than the record's: then one of the two is not what the run found."""
    beside = file.with_suffix(PREDICTIONS)
    if not is_there(beside):
        return ""
    try:
        table = predictions.read(beside, record)
    except UserError as error:
        return str(error)
    from vltune.stats.outcomes import BY_EXAMPLE, Scored

    told = ""
    for split, scores in record["metrics"].items():
        found = Scored(table, split)
        for name, score in (scores or {}).items():
            given = found.percent(name)
            if given is not None and abs(given - score) > AGREES:
                raise UserError(
                    f"{file}: field 'metrics.{split}.{name}' is {score:.2f}, its predictions give {given:.2f}: restore "
                    "what was changed, or run again with force=true"
                )
            if name in BY_EXAMPLE and not told:
                try:
                    found.outcomes(name)
                except ValueError as error:
                    told = f"{beside}: {error}"
    return told


def outcomes(file: Path, metric: str, record: dict | None = None) -> Outcomes:
    """The examples behind a `metric` of a record (`test.ir_r1`), from the predictions in `file`.

    record: whose they must be.  Raises UserError where there is no such file, split or truth, where examples cannot be told
    apart, and for a metric that is no mean over examples."""
    from vltune.stats.outcomes import Scored

    if not is_there(file):
        raise UserError(f"{file}: no predictions there")
    split, _, name = metric.partition(".")
    try:
        return Scored(predictions.read(file, record), split).outcomes(name)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
