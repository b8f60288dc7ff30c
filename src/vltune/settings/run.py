"""Settings of a run that belong to no group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval
from typing_extensions import TypedDict

from vltune.settings.kinds import FolderPath, Name


class RunSettings(TypedDict):
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)]
    """Of everything that is drawn: the start of new weights, the order of examples, dropout, augmentation."""
    weights: Path | None
    """The pretrained backbone: a file, a folder or a hub name; `pkg://vltune/...` comes with the package."""
    results_dir: FolderPath
    """The folder of records, predictions and tuned weights."""
    force: bool
    """Run anew although there is a finished record."""
    busy: Literal["wait", "leave"]
    """Where another process works on the same run: wait for it, or leave with exit status 75."""
    sweep: Name | None
    """The name that groups the runs of a sweep."""
    from_: Path | None
    """With mode=eval: the record whose tuned model is evaluated."""
    mode: Literal["train", "pretrain", "eval", "cost"]
    """What is done: train and evaluate, pretrain a small backbone, evaluate a record's model, or count the cost alone."""
