"""Running out of memory: how it is told apart from other errors, and what fits instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from vltune.errors import UserError


def is_out_of_memory(error: Exception) -> bool:
    """A GPU's allocator has an error of its own; the CPU's raises a RuntimeError that names it."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


WHOLE = "which no smaller batch lessens"


def evaluating(label: str, size: int, setting: str = "engine.eval_batch_size") -> AbstractContextManager:
    """Has memory that runs out in it say what to lower.  size: examples at a time, of the setting."""
    again = "lower it and give the command again; it goes on from what is trained"
    return _telling(f"{label}: out of memory with {setting}={size}: {again}")


def holding(label: str) -> AbstractContextManager:
    """Has memory that runs out in it say so where the model and its optimiser alone need too much."""
    needed = f"out of memory for the model and AdamW's two moments of all that is trained, {WHOLE}"
    return _telling(f"{label}: {needed}: train less of it, or on larger or more devices with engine.strategy=fsdp")


@contextmanager
def _telling(words: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(words) from None


def smaller(micro_batch: int, share: int) -> int | None:
    """At most half of `micro_batch`, and a divisor of the `share` of a batch that a device takes; None after 1."""
    return fitting(micro_batch // 2, share)


def fitting(most: int, share: int) -> int | None:
    """The largest divisor of a device's share that is `most` at most; None where `most` is 0."""
    return next((size for size in range(most, 0, -1) if share % size == 0), None)
