"""Ctrl-C, SIGTERM and SIGUSR1: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(BaseException):
    """The run was asked to stop and has saved what it can.  No Exception, so that a broad `except` lets it pass."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class StopRequest:
    """Within it, the first signal only raises a flag; a second Ctrl-C stops at once, losing what followed the last save."""

    def __init__(self):
        self.signum: int | None = None

    def __enter__(self) -> StopRequest:
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            self.previous = {s: signal.signal(s, self.receive) for s in SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)

    def receive(self, signum: int, frame) -> None:
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum

    def check(self) -> None:
        if self.signum is not None:
            raise Interrupted(self.signum)
