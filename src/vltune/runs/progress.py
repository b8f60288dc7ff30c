"""Progress on long work: a bar on a terminal, a line now and then elsewhere, and figures for who asks from outside."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15
RECENT = 20  # samples, at least a second apart, that the rate is taken over

_innermost: Progress | None = None


def state() -> dict[str, Any]:
    """What this process counts now, as `Progress.state`; empty where it counts nothing."""
    return _innermost.state() if _innermost else {}


class Progress:
    """Counts `total` steps of `unit`; shows loss and the like, the rate and the time left."""

    def __init__(self, label: str, total: int, start: int = 0, unit: str = "step", show: bool = True):
        global _innermost
        self.label, self.total, self.done, self.unit = label, total, start, unit
        self.bar = tqdm(
            total=total, initial=start, desc=label, unit=unit, disable=not (show and sys.stderr.isatty()), leave=False
        )
        self.lines = show and not sys.stderr.isatty()
        self.last = time.monotonic()
        self.samples = deque([(self.last, start)], maxlen=RECENT)
        self.around, _innermost = _innermost, self

    def step(self, count: int = 1, **values: float) -> None:
        self.done += count
        self.bar.update(count)
        if values and not self.bar.disable:
            self.bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()}, refresh=False)
        now = time.monotonic()
        if now - self.samples[-1][0] > 1:
            self.samples.append((now, self.done))
        if self.lines and now - self.last > SECONDS_BETWEEN_LINES:
            self.last = now
            at = self.state()
            shown = "".join(f", {name} {value:.3g}" for name, value in values.items())
            left = "" if at["left_s"] is None else f", {at['left_s']:.0f} s left"
            units = f"{self.unit}es" if self.unit.endswith("ch") else f"{self.unit}s"
            counts = f"{self.done}/{self.total} {units}{shown}, {at['rate']:.1f} {units}/s{left}"
            print(f"{self.label}: {counts}", file=sys.stderr)

    def state(self) -> dict[str, Any]:
        """step, total, unit; rate: recent steps a second; left_s: seconds left at that rate, None where it is 0."""
        since, before = self.samples[0]
        rate = (self.done - before) / max(time.monotonic() - since, 1e-9)
        left = (self.total - self.done) / rate if rate else None
        return {"step": self.done, "total": self.total, "unit": self.unit, "rate": rate, "left_s": left}

    def close(self) -> None:
        global _innermost
        self.bar.close()
        if _innermost is self:
            _innermost = self.around
