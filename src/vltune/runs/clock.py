"""How long each part of a run takes."""

from __future__ import annotations

import time


class Clock:
    """Seconds by phase, from the start on and wherever a phase is under way; `before` are those of earlier processes that
    this one resumes."""

    def __init__(self):
        self.before, self.laps = 0.0, {}
        self.phase, self.began = "data", time.monotonic()

    def begin(self, phase: str) -> None:
        self.end()
        self.phase, self.began = phase, time.monotonic()

    def end(self) -> None:
        if self.phase:
            self.laps[self.phase] = round(time.monotonic() - self.began, 2)
        self.phase = None

    def total(self) -> float:
        under_way = time.monotonic() - self.began if self.phase else 0.0
        return round(self.before + sum(list(self.laps.values())) + under_way, 2)
