"""Time and memory, as used."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from statistics import median

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
    return {"median": median(kept), "p95": kept[min(len(kept) - 1, int(0.95 * len(kept)))]}


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
            wait(device)
            taken.append(1000 * (time.perf_counter() - began))
    return taken


def wait(device: torch.device) -> None:
    """Until it has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def repeat(batch: Batch, times: int) -> dict[str, Tensor]:
    return {key: tensor.repeat(times, *[1] * (tensor.dim() - 1)) for key, tensor in batch.items()}


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET.exists():
        RESET.write_text("5")  # Linux: forget the process's peak, which earlier runs in it may have set


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory since the last reset: allocated on a GPU of NVIDIA's or AMD's, else resident of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
