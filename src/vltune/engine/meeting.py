"""After which steps the processes of a run wait for their devices and for each other.

Between two meetings nothing is read from a device: the host runs ahead of it.
"""

from __future__ import annotations

import time

import torch
from lightning_fabric import Fabric

SECONDS = 0.5  # between two meetings of several processes: one of them that is to stop is soon answered by all


class Meetings:
    """Those of several processes, all after the same steps; of a lone process the caller alone decides."""

    def __init__(self, fabric: Fabric, step: int):
        self.fabric = fabric
        self.last, self.next, self.since = step, step + 1, time.monotonic()

    def due(self, step: int) -> bool:
        """The same answer in every process."""
        return self.fabric.world_size > 1 and step >= self.next

    def plan(self, step: int) -> None:
        """At a meeting after `step`: the next one, by the pace of all processes together."""
        if self.fabric.world_size == 1:
            return
        now = time.monotonic()
        pace = torch.tensor((now - self.since) / (step - self.last), device=self.fabric.device)
        pace = max(float(self.fabric.all_reduce(pace)), 1e-6)  # seconds a step
        self.last, self.next, self.since = step, step + max(1, int(SECONDS / pace)), now
