"""Predictions of every example of a split."""

from __future__ import annotations

import math

import torch
from lightning_fabric import Fabric
from torch.utils.data import Dataset, Subset

from vltune.engine.source import BadExamples, loader
from vltune.model import Model
from vltune.runs.progress import Progress
from vltune.runs.signals import StopRequest


@torch.no_grad()
def predict(
    fabric: Fabric,
    model: Model,
    dataset: Dataset,
    collate,
    batch_size: int,
    workers: int,
    stop: StopRequest,
    bad: BadExamples,
    label: str,
) -> list[dict]:
    """One row an example, in the order of the dataset; every process computes its share and returns all rows."""
    share = range(fabric.global_rank, len(dataset), fabric.world_size)
    batches = loader(Subset(dataset, share), collate, workers, batch_size=batch_size)
    progress, rows = Progress(label, len(batches), unit="batch", show=fabric.is_global_zero), []
    model.eval()
    with model.tuning.folded():
        for batch in batches:
            bad.note(batch)
            if batch["ids"]:
                batch = fabric.to_device(batch)
                with fabric.autocast():
                    output = model(batch)
                rows += model.task.predictions(output, batch)
            progress.step()
            stop.check(fabric)
        most = math.ceil(math.ceil(len(dataset) / fabric.world_size) / batch_size)
        for _ in range(most - len(batches)):  # a process with a batch fewer is asked as often
            stop.check(fabric)
    progress.close()
    return gathered(fabric, rows)


def gathered(fabric: Fabric, rows: list[dict]) -> list[dict]:
    if fabric.world_size == 1:
        return rows
    parts: list = [None] * fabric.world_size
    torch.distributed.all_gather_object(parts, rows)
    longest = max(map(len, parts))
    return [part[i] for i in range(longest) for part in parts if i < len(part)]
