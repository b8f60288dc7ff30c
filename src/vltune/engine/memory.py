"""Running out of memory: how it is told apart from other errors, and what fits instead."""

from __future__ import annotations

import torch


def is_out_of_memory(error: RuntimeError) -> bool:
    """A GPU's allocator has an error of its own; the CPU's raises a RuntimeError that names it."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def smaller(micro_batch: int, share: int) -> int | None:
    """At most half of `micro_batch`, and a divisor of the `share` of a batch that a device takes; None after 1."""
    return next((size for size in range(micro_batch // 2, 0, -1) if share % size == 0), None)
