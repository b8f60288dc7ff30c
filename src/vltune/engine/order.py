"""Which examples make up each optimiser step: a pure function of seed and step, so that a run resumes anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from vltune.errors import UserError

POOL = 50  # batches: the more, the less padding, and the less a batch is a sample of all examples


class Order:
    """Shuffles anew each epoch and leaves out the last examples that fill no batch.

    batch_size: examples an optimiser step, over all devices and micro-batches.  lengths: (examples,) of their texts, or
    None; with them a batch holds texts of similar length: every 50 batches of shuffled examples are sorted among
    themselves, and the batches of the epoch come in random order."""

    def __init__(self, examples: int, batch_size: int, seed: int, lengths: np.ndarray | None = None):
        if examples < batch_size:
            raise UserError(f"engine.batch_size={batch_size} exceeds the {examples} training examples; make it smaller")
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.steps_per_epoch = examples // batch_size
        self.lengths = None if lengths is None else torch.from_numpy(lengths)

    def steps(self, start: int, end: int) -> Iterator[list[tuple[int, int]]]:
        """For each step (example, augmentation seed) pairs; an example's seed differs from epoch to epoch."""
        shuffled_for = None
        for step in range(start, end):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != shuffled_for:
                order, shuffled_for = self.epoch(epoch), epoch
            chosen = order[place * self.batch_size : (place + 1) * self.batch_size].tolist()
            yield [(example, (self.seed * 1_000_003 + epoch) * self.examples + example) for example in chosen]

    def epoch(self, number: int) -> torch.Tensor:
        """The examples in the order of the epoch's batches."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(self.examples, generator=generator)
        if self.lengths is None:
            return order
        pools = order[: self.steps_per_epoch * self.batch_size].split(POOL * self.batch_size)
        batches = torch.cat([pool[self.lengths[pool].argsort(stable=True)] for pool in pools]).view(-1, self.batch_size)
        return batches[torch.randperm(len(batches), generator=generator)].flatten()


class MicroBatches:
    """A batch sampler: the share of one process, each step in `accumulation` micro-batches."""

    def __init__(self, order: Order, start: int, end: int, accumulation: int, rank: int = 0, world: int = 1):
        self.order, self.start, self.end = order, start, end
        self.accumulation, self.rank, self.world = accumulation, rank, world

    def __len__(self) -> int:
        return (self.end - self.start) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.order.steps(self.start, self.end):
            share = step[self.rank :: self.world]
            size = len(share) // self.accumulation
            for i in range(self.accumulation):
                yield share[i * size : (i + 1) * size]


def accumulation_steps(batch_size: int, micro_batch_size: int | None, world: int) -> int:
    """How many micro-batches of a process make up one optimiser step."""
    share, rest = divmod(batch_size, world)
    if rest:
        raise UserError(f"engine.batch_size={batch_size} cannot be shared evenly by {world} devices")
    micro = min(micro_batch_size or share, share)
    steps, rest = divmod(share, micro) if micro > 0 else (0, 1)
    if rest:
        raise UserError(
            f"engine.micro_batch_size={micro_batch_size}: must be at least 1 and divide the {share} examples "
            f"that a device takes of engine.batch_size={batch_size}"
        )
    return steps
