"""How long work takes on a device, measured without waiting for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vltune.costs.usage import wait


class Laps:
    """What one step computes, in pieces between which it reads.

    On a GPU a piece lasts from where the device begins it to where it ends it, by events in its stream; elsewhere by the
    host's clock, for which an Apple GPU is waited for."""

    def __init__(self, device: torch.device):
        self.device, self.on_gpu = device, device.type == "cuda"
        self.pieces: list[tuple] = []

    @contextmanager
    def piece(self) -> Iterator[None]:
        began = self.mark()
        yield
        self.pieces.append((began, self.mark()))

    def mark(self) -> torch.cuda.Event | float:
        if not self.on_gpu:
            wait(self.device)
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self) -> float:
        """Waits for the device to end the last piece."""
        if not self.on_gpu:
            return 1000 * sum(ended - began for began, ended in self.pieces)
        self.pieces[-1][1].synchronize()
        return sum(began.elapsed_time(ended) for began, ended in self.pieces)
