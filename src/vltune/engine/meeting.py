"""After which steps the processes of a run agree on whether to stop and to save: on their hosts, that run ahead of the
devices."""

from __future__ import annotations

import time
from collections.abc import Callable

from lightning_fabric import Fabric

from vltune.runs.signals import StopRequest
from vltune.runs.together import largest

SECONDS = 0.5  # between two meetings of several processes: one of them that is to stop is soon answered by all


class Meetings:
    """Those of several processes, all after the same steps.  A lone one meets itself as soon as it is asked to stop or has
    to save; several read their clocks apart.

    late: whether this process would save."""

    def __init__(self, fabric: Fabric, stop: StopRequest, late: Callable[[], bool], step: int):
        self.fabric, self.stop, self.late = fabric, stop, late
        self.last, self.since, self.steps = step, time.monotonic(), 1  # to the next meeting

    def due(self, step: int) -> bool:
        """The same answer in every process."""
        if self.fabric.world_size == 1:
            return self.stop.asked or self.late()
        return step >= self.last + self.steps

    def hold(self, step: int) -> tuple[bool, bool]:
        """After `step`: whether to stop, and whether to save, the same answers in every process.

        The next meeting is planned by the pace of the slowest, and after no more than twice as many steps as the last one
        was: a host that has run ahead of its device is only seemingly fast."""
        now = time.monotonic()
        own = (now - self.since) / (step - self.last)
        asked, late, pace = largest(self.fabric, self.stop.asked, self.late(), own)
        self.steps = max(1, min(int(SECONDS / max(pace, 1e-9)), 2 * self.steps))
        self.last, self.since = step, now
        return bool(asked) and self.stop.share(self.fabric), bool(late)
