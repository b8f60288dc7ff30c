"""Processes that read: how many suit a machine, and which signals they heed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path

import torch
from torch.utils.data import Dataset, Subset

from vltune.data.pool import cores
from vltune.runs.signals import SIGNALS

MOST = 16  # workers of a GPU
SHARED_MEMORY = Path("/dev/shm")  # through which batches reach the process that trains


def suiting(dataset: Dataset, batch_size: int | None) -> tuple[int, int | None]:
    """How many workers, and how many batches each prepares ahead, or None without workers.

    None without a GPU, as a step on a CPU takes a hundred times as long as reading its batch, and all cores; and none where
    nothing is decoded: of `dataset.example_bytes`, what an example's pixels take, 0 or no such attribute says so.
    """
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    batch_bytes = getattr(dataset, "example_bytes", 0) * (batch_size or 0)
    if not batch_bytes or not torch.cuda.device_count():
        return 0, None
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 2**32
    return share(cores(), torch.cuda.device_count(), free, batch_bytes)


def share(cores: int, gpus: int, free: int, batch_bytes: int) -> tuple[int, int | None]:
    """Of one GPU: all its cores but the one that trains, and no more batches under way than fill half of its memory.

    free: bytes of shared memory; a container has 64 MB of it unless told otherwise, and a worker dies where it is full."""
    room = free // gpus // 2 // batch_bytes
    workers = min(cores // gpus - 1, MOST, room)
    return (workers, min(room // workers, 4)) if workers > 0 else (0, None)


def heed_parent_only(worker: int) -> None:
    """A scheduler and a terminal signal all processes of a job.  What that means the parent decides, which still needs its
    workers for the step that it finishes: they heed no signal but SIGTERM from the parent itself."""
    for signum in {*SIGNALS} - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=end_with_parent, args=(multiprocessing.parent_process().pid,), daemon=True).start()


def end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
