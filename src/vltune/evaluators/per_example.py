"""One prediction for each example of a split."""

from __future__ import annotations

import math
from contextlib import closing

import torch
from lightning_fabric import Fabric
from torch.utils.data import Dataset, Subset

from vltune.engine.source import loader
from vltune.evaluators.evaluator import Evaluator
from vltune.runs.progress import Progress


class PerExample(Evaluator):
    """The task's `predictions` of every example, in the order of the dataset."""

    def predict(self, split: str, dataset: Dataset) -> list[dict]:
        session, rows = self.session, []
        fabric, model, size = session.fabric, session.model, session.data.eval_batch_size
        share = range(fabric.global_rank, len(dataset), fabric.world_size)
        batches = loader(Subset(dataset, share), session.data.collate, session.settings.workers, batch_size=size)
        progress = Progress(self.label(split), len(batches), unit="batch", show=fabric.is_global_zero)
        model.eval()
        with closing(progress), model.settled():
            for batch in batches:
                session.bad.note(batch)
                if batch["ids"]:
                    batch = session.to_device(batch)
                    with fabric.autocast():
                        output = model(batch)
                    rows += model.task.predictions(output, batch)
                progress.step()
                session.stop.check(fabric)
            most = math.ceil(math.ceil(len(dataset) / fabric.world_size) / size)
            for _ in range(most - len(batches)):  # a process with a batch fewer is asked as often
                session.stop.check(fabric)
        return gather(fabric, rows)


def gather(fabric: Fabric, rows: list[dict]) -> list[dict]:
    """The rows of all processes, which take turns."""
    if fabric.world_size == 1:
        return rows
    parts: list = [None] * fabric.world_size
    torch.distributed.all_gather_object(parts, rows)
    longest = max(map(len, parts))
    return [part[i] for i in range(longest) for part in parts if i < len(part)]
