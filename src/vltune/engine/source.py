"""Where batches come from: a dataset read in a reproducible order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vltune.batch import Batch
from vltune.engine import workers as processes
from vltune.engine.order import MicroBatches, Order
from vltune.errors import BadExampleError
from vltune.runs.together import Processes, told


class TrainingData:
    """Micro-batches of a dataset, from any optimiser step on.

    workers: as in `loader`.  lengths: see `Order`."""

    divisible = True  # into micro-batches of any size

    def __init__(
        self,
        dataset: Dataset,
        collate: Callable,
        batch_size: int,
        seed: int,
        workers: int | None,
        lengths: np.ndarray | None = None,
    ):
        self.order = Order(len(dataset), batch_size, seed, lengths)
        self.steps_per_epoch, self.batch_size = self.order.steps_per_epoch, batch_size
        self.dataset, self.collate, self.workers = dataset, collate, workers

    def batches(self, start: int, end: int, accumulation: int, rank: int, world: int) -> Iterator[dict]:
        sampler = MicroBatches(self.order, start, end, accumulation, rank, world)
        size = self.order.batch_size // world // accumulation
        return iter(loader(self.dataset, self.collate, self.workers, size, batch_sampler=sampler))

    def once(self, batch_size: int) -> Iterator[dict]:
        """Every example, in order and not augmented."""
        return iter(loader(self.dataset, self.collate, self.workers, batch_size))


class GeneratedData(Dataset):
    """Batches that a pure function of a number makes; `generate(n)` gives the n-th micro-batch of the whole run."""

    divisible = False
    batch_size = None  # as configured

    def __init__(self, generate: Callable[[int], dict], steps_per_epoch: int, workers: int | None):
        self.generate, self.steps_per_epoch, self.workers = generate, steps_per_epoch, workers

    def __getitem__(self, number: int) -> dict:
        return self.generate(number)

    def batches(self, start: int, end: int, accumulation: int, rank: int, world: int) -> Iterator[dict]:
        numbers = range(start * accumulation * world + rank, end * accumulation * world, world)
        return iter(loader(self, None, self.workers, batch_size=None, sampler=numbers))


@dataclass
class Data:
    """A run's data.  facts: what a task is built from.  split(name): a dataset to score, or None where there is none of
    that name."""

    training: Callable[[], TrainingData | GeneratedData]
    split: Callable[[str], Dataset | None]
    collate: Callable
    facts: dict
    fingerprint: str
    eval_batch_size: int


def loader(
    dataset: Dataset,
    collate: Callable | None,
    workers: int | None,
    batch_size: int | None,
    batch_sampler: Iterable | None = None,
    sampler: Iterable | None = None,
) -> DataLoader:
    """workers: processes that read; None: as many as suit dataset and machine.  batch_size: examples of a batch, at most
    where a `batch_sampler` makes them up; None: the dataset gives whole batches."""
    ahead = None
    if workers is None:
        workers, ahead = processes.suiting(dataset, batch_size)
    batches = (
        {"batch_size": batch_size, "sampler": sampler} if batch_sampler is None else {"batch_sampler": batch_sampler}
    )
    # Its own generator: a loader that draws from the global one would make a resumed run differ.
    return DataLoader(
        dataset,
        **batches,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=ahead,
        worker_init_fn=processes.heed_parent_only,
        generator=torch.Generator(),
        persistent_workers=False,
        pin_memory=torch.cuda.is_available(),
    )


class BadExamples:
    """Counts the examples that could not be read; more than `most` end the run."""

    def __init__(self, most: int):
        self.most, self.seen = most, {}

    def note(self, batch: Batch) -> None:
        for description in batch.get("bad", ()):
            self.seen[description] = None
        self.check()

    def of_all(self, processes: Processes) -> list[str]:
        """What all processes saw, which call this together."""
        return [*dict.fromkeys(chain.from_iterable(told(processes, [*self.seen])))]

    def gather(self, processes: Processes) -> None:
        """Takes what all processes saw, which call this together."""
        self.seen = dict.fromkeys(self.of_all(processes))
        self.check()

    def check(self) -> None:
        if len(self.seen) > self.most:
            raise BadExampleError(
                f"{next(reversed(self.seen))}; {len(self.seen)} bad in all: repair the file "
                f"or allow so many with dataset.max_bad_examples={len(self.seen)}"
            )
