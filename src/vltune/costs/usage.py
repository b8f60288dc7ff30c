"""Time and memory, as used."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from vltune.batch import Batch
from vltune.model import Model

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def spread(milliseconds: list[float]) -> dict[str, float] | None:
    """Median and 95th percentile, the first tenth left out as warm-up."""
    kept = sorted(milliseconds[len(milliseconds) // 10 :])
    if not kept:
        return None
    return {"median": kept[len(kept) // 2], "p95": kept[min(len(kept) - 1, int(0.95 * len(kept)))]}


@torch.no_grad()
def inference(model: Model, batch: Batch, repeats: int = 20) -> list[float]:
    """Milliseconds of forward passes over `batch`, everything folded."""
    device = next(model.parameters()).device
    batch, taken = {key: tensor.to(device) for key, tensor in batch.items()}, []
    model.eval()
    with model.settled():
        for _ in range(repeats):
            began = time.perf_counter()
            model(batch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(1000 * (time.perf_counter() - began))
    return taken


def repeat(batch: Batch, times: int) -> dict[str, Tensor]:
    return {key: tensor.repeat(times, *[1] * (tensor.dim() - 1)) for key, tensor in batch.items()}


def reset_peak_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif RESET.exists():
        RESET.write_text("5")  # Linux: forget the process's peak, which earlier runs in it may have set


def peak_memory_bytes() -> int:
    """The most memory since the last reset: allocated on the GPU, or resident of the whole process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
