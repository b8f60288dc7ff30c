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


_swept: list[int] = []  # in a worker of a sweep: the signals that it has received


def _note(signum: int, frame) -> None:
    _swept.append(signum)


def guard_worker() -> None:
    """For a process that runs one run of a sweep after another: once it was asked to stop, it starts no further run."""
    if signal.getsignal(signal.SIGTERM) is not _note:
        for signum in SIGNALS:
            signal.signal(signum, _note)
    if _swept:
        raise Interrupted(_swept[0])


class StopRequest:
    """Within it, the first signal only raises a flag; a second Ctrl-C stops at once, losing what followed the last save."""

    def __init__(self):
        self.signum: int | None = None

    def __enter__(self) -> StopRequest:
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            self.previous = {s: signal.getsignal(s) for s in SIGNALS}
            for signum in SIGNALS:
                signal.signal(signum, self.receive)
        if _swept and self.signum is None:
            self.signum = _swept[0]  # it came while the run was being prepared
        return self

    def __exit__(self, *error) -> None:
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)

    def receive(self, signum: int, frame) -> None:
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
        if self.previous.get(signum) is _note:
            _note(signum, frame)

    def check(self) -> None:
        if self.signum is not None:
            raise Interrupted(self.signum)
