"""A record with the predictions beside it: whether they give its scores, and example by example."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vltune.errors import UserError
from vltune.metrics.metric import declared
from vltune.records import predictions
from vltune.records.predictions import PREDICTIONS

if TYPE_CHECKING:
    from vltune.records.record import Record
    from vltune.stats.outcomes import Outcomes

AGREES = 1e-4  # of a score, and of 100 %: between a record's and that of its predictions, which are float32


def check(record: Record, file: Path) -> str:
    """What is wrong with the predictions beside the valid `record` in `file`; nothing where there are none.

    Raises UserError where they give another score than the record's: then one of the two is not what the run found."""
    beside = file.with_suffix(PREDICTIONS)
    if not predictions.are_there(beside, record):
        return ""
    try:
        table = predictions.read(beside, record)
    except UserError as error:
        return str(error)
    from vltune.stats.outcomes import Scored

    metrics, looked, trouble = declared(record), [], ""
    for split in ("val", "test"):
        found = Scored(table, split, metrics)
        for name, score in (record["metrics"][split] or {}).items():
            given = found.figure(name)
            if given is not None and abs(given - score) > AGREES * max(metrics[name].factor, abs(score)):
                raise UserError(
                    f"{file}: field 'metrics.{split}.{name}' is {score:.2f}, its predictions give {given:.2f}: restore "
                    "what was changed, or run again with force=true"
                )
            if (metric := metrics.get(name)) is None:
                trouble = trouble or f"{beside}: not checked, for the record does not say what {name} is"
            elif metric.by_example and not trouble and (split, metric.rows) not in looked:
                looked.append((split, metric.rows))
                try:
                    found.outcomes(name)
                except ValueError as error:
                    trouble = f"{beside}: {error}"
    return trouble


def outcomes(file: Path, metric: str, record: Record) -> Outcomes:
    """The examples behind a `metric` of a record (`test.ir_r1`), from the predictions in `file`, which must be its own.

    Raises UserError where there is no such file, split or truth, where examples cannot be told apart, and for a metric
    that is no mean over examples."""
    from vltune.stats.outcomes import Scored

    if not predictions.are_there(file, record):
        raise UserError(f"{file}: no predictions there")
    split, _, name = metric.partition(".")
    try:
        return Scored(predictions.read(file, record), split, declared(record)).outcomes(name)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
