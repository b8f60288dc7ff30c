"""Predictions of a split, with the features of frozen towers read from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vltune.assemble.data import Data
from vltune.engine.settings import Settings
from vltune.errors import UserError
from vltune.runs.signals import StopRequest

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from vltune.engine.source import BadExamples
    from vltune.model import Model


def score(
    fabric: Fabric,
    model: Model,
    data: Data,
    split: str,
    settings: Settings,
    stop: StopRequest,
    bad: BadExamples,
    label: str,
    folder: Path,
) -> list[dict]:
    """Prediction rows of a split, none where there is no such split.  folder: for what a stopped run goes on from."""
    from torch.utils.data import Subset

    from vltune.engine.memory import is_out_of_memory
    from vltune.evaluators.all_pairs import score_pairs
    from vltune.evaluators.per_example import predict

    dataset = data.split(split)
    if dataset is None:
        return []
    how = data.collate, data.eval_batch_size, settings.workers, stop, bad, label
    if settings.eval_examples is not None:
        dataset = Subset(dataset, range(min(settings.eval_examples, len(dataset))))
    try:
        if not model.task.pairs:
            return predict(fabric, model, dataset, *how)
        folder.mkdir(parents=True, exist_ok=True)
        scores = score_pairs(fabric, model, dataset, *how, file=folder / f"{split}.scores")
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{label}: out of memory with engine.eval_batch_size={data.eval_batch_size}: lower it and give the command "
            "again; it goes on from what is trained"
        ) from None
    return model.task.rows(scores, dataset.owner, range(len(dataset.images)), range(len(dataset.captions)))


def keep_features(
    fabric: Fabric, model: Model, data: Data, splits: set[str], settings: Settings, stop: StopRequest
) -> None:
    """Has what frozen towers make of the splits' images and texts read from files, written first where there are none."""
    from vltune.features.cache import attach

    readers = [reader for split in sorted(splits) if (reader := data.split(split)) is not None]
    attach(fabric, model, readers, data.collate, Path(settings.features_dir), settings.workers, stop)
