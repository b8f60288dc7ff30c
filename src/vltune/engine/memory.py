"""Running out of memory: how it is told apart from other errors, and what fits instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vltune.errors import UserError


def is_out_of_memory(error: RuntimeError) -> bool:
    """A GPU's allocator has an error of its own; the CPU's raises a RuntimeError that names it."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


@contextmanager
def evaluating(label: str, size: int) -> Iterator[None]:
    """Has memory that runs out in it say what to lower.  size: examples at a time."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{label}: out of memory with engine.eval_batch_size={size}: lower it and give the command again; it goes on "
            "from what is trained"
        ) from None


def smaller(micro_batch: int, share: int) -> int | None:
    """At most half of `micro_batch`, and a divisor of the `share` of a batch that a device takes; None after 1."""
    return next((size for size in range(micro_batch // 2, 0, -1) if share % size == 0), None)
