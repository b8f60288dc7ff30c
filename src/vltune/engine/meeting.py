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
        self.last, self.next, self.since = step, step + 1, time.monotonic()

    def due(self, step: int) -> bool:
        """The same answer in every process."""
        if self.fabric.world_size == 1:
            return self.stop.asked or self.late()
        return step >= self.next

    def hold(self, step: int) -> tuple[bool, bool]:
        """After `step`: whether to stop, and whether to save, the same answers in every process.

        The next meeting is planned by the pace of the slowest, and never after more than twice as many steps as went since
        the last one: a host that has run ahead of its device is only seemingly fast."""
        now, taken = time.monotonic(), step - self.last
        asked, late, pace = largest(self.fabric, self.stop.asked, self.late(), (now - self.since) / taken)
        steps = min(int(SECONDS / max(pace, 1e-9)), 2 * taken)
        self.last, self.next, self.since = step, step + max(1, steps), now
        return bool(asked) and self.stop.share(self.fabric), bool(late)
