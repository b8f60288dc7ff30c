"""Progress on long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15


class Progress:
    """Counts `total` steps of `unit`; shows loss and the like, the rate and the time left."""

    def __init__(self, label: str, total: int, start: int = 0, unit: str = "step", show: bool = True):
        self.label, self.total, self.done, self.unit = label, total, start, unit
        self.bar = tqdm(
            total=total, initial=start, desc=label, unit=unit, disable=not (show and sys.stderr.isatty()), leave=False
        )
        self.lines = show and not sys.stderr.isatty()
        self.first, self.began, self.last = start, time.monotonic(), time.monotonic()

    def step(self, count: int = 1, **values: float) -> None:
        self.done += count
        self.bar.update(count)
        if values and not self.bar.disable:
            self.bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()}, refresh=False)
        now = time.monotonic()
        if self.lines and now - self.last > SECONDS_BETWEEN_LINES:
            self.last = now
            rate = (self.done - self.first) / (now - self.began)
            left = (self.total - self.done) / rate
            shown = "".join(f", {name} {value:.3g}" for name, value in values.items())
            print(
                f"{self.label}: {self.done}/{self.total} {self.unit}s{shown}, {rate:.1f} {self.unit}s/s, {left:.0f} s left",
                file=sys.stderr,
            )

    def close(self) -> None:
        self.bar.close()
