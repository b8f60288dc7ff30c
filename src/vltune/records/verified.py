"""A record with the predictions beside it: whether they give its scores."""

from __future__ import annotations

from pathlib import Path

from vltune.errors import UserError
from vltune.records import predictions
from vltune.records.files import is_there
from vltune.records.predictions import PREDICTIONS

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
    from vltune.stats import outcomes

    told = ""
    for split, scores in record["metrics"].items():
        found = outcomes.Split(table, split)
        for name, score in (scores or {}).items():
            given = found.percent(name)
            if given is not None and abs(given - score) > AGREES:
                raise UserError(
                    f"{file}: field 'metrics.{split}.{name}' is {score:.2f}, its predictions give {given:.2f}: restore "
                    "what was changed, or run again with force=true"
                )
            if name in outcomes.BY_EXAMPLE and not told:
                try:
                    found.outcomes(name)
                except ValueError as error:
                    told = f"{beside}: {error}"
    return told
