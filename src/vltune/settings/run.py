"""Settings of a run that belong to no group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval
from typing_extensions import TypedDict

from vltune.settings.kinds import FolderPath, Name, NotDecisive, NotItself


class RunSettings(TypedDict):
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)]
    """Of everything that is drawn: the start of new weights, the order of examples, dropout, augmentation."""
    weights: Annotated[Path | None, NotItself()]
    """The pretrained backbone: a file, a folder or a hub name; `pkg://vltune/...` comes with the package."""
    results_dir: Annotated[FolderPath, NotDecisive()]
    """The folder of records, predictions and tuned weights."""
    force: Annotated[bool, NotDecisive()]
    """Run anew although there is a finished record."""
    busy: Annotated[Literal["wait", "leave"], NotDecisive()]
    """Where another process works on the same run: wait for it, or leave with exit status 75."""
    sweep: Annotated[Name | None, NotDecisive()]
    """The name that groups the runs of a sweep."""
    from_: Annotated[Path | None, NotDecisive()]
    """With mode=eval: the record whose tuned model is evaluated."""
    mode: Annotated[Literal["train", "pretrain", "eval", "cost"], NotDecisive()]
    """What is done: train and evaluate, pretrain a small backbone, evaluate a record's model, or count the cost alone."""


# With mode=eval, what may be given beside from=RECORD: which splits, where things lie, how it is computed.  All else the
# record says.
HONOURED = (
    *("engine.evaluate", "engine.eval_batch_size", "engine.accelerator", "engine.devices", "engine.nodes"),
    *("engine.strategy", "engine.workers", "engine.threads", "engine.attention", "engine.portable"),
    *("engine.cache_features", "engine.features_dir"),
    *("dataset.data_dir", "dataset.subfolder", "dataset.generate", "dataset.max_bad_examples"),
    *("dataset.prompts", "dataset.few_shot_list", "task.judges"),
    *("weights", "backbone.tokenizer", "backbone.tower_weights"),
)
