"""Where batches come from: a dataset read in a reproducible order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from vltune.engine.order import MicroBatches, Order
from vltune.errors import BadExampleError


class TrainingData:
    """Micro-batches of a dataset, from any optimiser step on."""

    def __init__(self, dataset: Dataset, collate: Callable, batch_size: int, seed: int, workers: int):
        self.order = Order(len(dataset), batch_size, seed)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.dataset, self.collate, self.workers = dataset, collate, workers

    def batches(self, start: int, end: int, accumulation: int, rank: int, world: int) -> Iterator[dict]:
        sampler = MicroBatches(self.order, start, end, accumulation, rank, world)
        return iter(loader(self.dataset, self.collate, self.workers, batch_sampler=sampler))


class GeneratedData(Dataset):
    """Batches that a pure function of a number makes; `generate(n)` gives the n-th micro-batch of the whole run."""

    def __init__(self, generate: Callable[[int], dict], steps_per_epoch: int, workers: int):
        self.generate, self.steps_per_epoch, self.workers = generate, steps_per_epoch, workers

    def __getitem__(self, number: int) -> dict:
        return self.generate(number)

    def batches(self, start: int, end: int, accumulation: int, rank: int, world: int) -> Iterator[dict]:
        numbers = range(start * accumulation * world + rank, end * accumulation * world, world)
        return iter(loader(self, None, self.workers, batch_size=None, sampler=numbers))


def loader(dataset: Dataset, collate: Callable | None, workers: int, **how) -> DataLoader:
    # Its own generator: a loader that draws from the global one would make a resumed run differ.
    return DataLoader(
        dataset,
        collate_fn=collate,
        num_workers=workers,
        generator=torch.Generator(),
        persistent_workers=False,
        pin_memory=torch.cuda.is_available(),
        **how,
    )


class BadExamples:
    """Counts the examples that could not be read; more than `most` end the run."""

    def __init__(self, most: int):
        self.most, self.seen = most, {}

    def note(self, batch: dict) -> None:
        for description in batch.get("bad", ()):
            self.seen[description] = None
        if len(self.seen) > self.most:
            raise BadExampleError(
                f"{next(reversed(self.seen))}; {len(self.seen)} bad in all: repair the file "
                f"or allow so many with dataset.max_bad_examples={len(self.seen)}"
            )
