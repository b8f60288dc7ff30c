"""Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 (SLURM's warning, as submitit asks for it): finish the step, save, leave.

Where there is nothing to save, Ctrl-C and SIGTERM end a process at once; wherever it is, within GRACE seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from subprocess import Popen

from vltune.runs.together import ALONE, Processes, largest, told

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
ENDING = (signal.SIGINT, signal.SIGTERM)
GRACE, LONGER = 8.0, 9.5  # seconds; the longer one for a process that waits for others to end within the shorter
EX_TEMPFAIL = 75  # exit status of a run that another process works on: EX_TEMPFAIL of sysexits.h


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, where nothing has to be saved."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum, self.exit_code = signum, 128 + signum


_raised: list[Stopped] = []


def heard() -> Stopped | None:
    """What a signal raised in this process, whatever the code that it met made of it: libraries turn it into errors of
    their own, and where one swallows it a module stays half imported."""
    return _raised[-1] if _raised else None


def heed_signals(grace: float = GRACE) -> Callable[[], None]:
    """From here on Ctrl-C and SIGTERM raise Stopped, and `grace` seconds later end this process wherever it is then.

    What it returns is called once all is done: while the interpreter ends, they end it at once.

    The main thread may be in a call that returns to no Python code for minutes, in a library that lets no exception pass,
    or in a run that finishes a step; the interpreter tells a thread of its own about signals whatever that does."""
    owner, first, done = os.getpid(), True, False
    _raised.clear()

    def receive(signum: int, frame: object) -> None:
        nonlocal first
        # A copy of the process; a second Ctrl-C.
        if done or os.getpid() != owner or (signum == signal.SIGINT and not first):
            os._exit(128 + signum)
        if first:
            first = False
            _raised.append(Stopped(signum))
            raise _raised[-1]

    def unraised(failure: sys.UnraisableHookArgs) -> None:
        """Where no exception may leave, as in a weak reference's callback, the signal comes again a moment later."""
        nonlocal first
        if isinstance(failure.exc_value, Stopped):
            first = True
            threading.Timer(0.05, os.kill, (owner, failure.exc_value.signum)).start()
        else:
            sys.__unraisablehook__(failure)

    def end() -> None:
        nonlocal done
        done = True

    sys.unraisablehook = unraised
    for signum in ENDING:
        signal.signal(signum, receive)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # what a copy is told is not for this process
    threading.Thread(target=_end_in_time, args=(reader, grace), name="signals", daemon=True).start()
    return end


def _end_in_time(pipe: int, grace: float) -> None:
    while (signum := os.read(pipe, 1)[0]) not in ENDING:
        pass
    time.sleep(grace)
    line = f"stopped by {signal.Signals(signum).name}: did not end within {grace:g} seconds, and was ended\n"
    with suppress(OSError):
        os.write(2, line.encode())
    os._exit(128 + signum)


class Interrupted(BaseException):
    """The run was asked to stop and has saved what it can.  No Exception, so that a broad `except` lets it pass."""

    outcome = "saved; the same command resumes it"

    def __init__(self, signum: int):
        super().__init__(signum)
        self.exit_code = 128 + signum

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.args[0]).name}: {self.outcome}"


class OwnedElsewhere(BaseException):
    """Another process works on this run, and nothing may be written here."""

    exit_code = EX_TEMPFAIL


class StopRequest:
    """Within it, the first signal only raises a flag; a second Ctrl-C stops at once, losing what followed the last save.

    lost: why the run goes on elsewhere, once it does.  may_write: raises OwnedElsewhere in that case; called before a
    checkpoint is written.  processes: of this run, started by this process; they are asked to stop as well.  agreed:
    whether all processes of the run know."""

    def __init__(self):
        self.signum: int | None = None
        self.lost: str | None = None
        self.may_write: Callable[[], object] = lambda: None
        self.processes: Sequence[Popen] = ()
        self.agreed = False
        self._ctrl_c = False

    def __enter__(self) -> StopRequest:
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            self.previous = {s: signal.getsignal(s) for s in SIGNALS}
            for signum in SIGNALS:
                signal.signal(signum, self.receive)
        return self

    def __exit__(self, *error) -> None:
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)

    def receive(self, signum: int, frame) -> None:
        if signum == signal.SIGINT and self._ctrl_c:
            raise KeyboardInterrupt
        self._ctrl_c |= signum == signal.SIGINT
        if self.signum is None:
            self.signum = signum
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.terminate()  # not with the same: a terminal gives a Ctrl-C to all, and the second stops at once

    def lose(self, why: str) -> None:
        self.lost = why

    @property
    def asked(self) -> bool:
        return self.signum is not None or self.lost is not None

    def check(self, processes: Processes = ALONE) -> None:
        """processes: that all come here, of which one that is asked to stop stops all."""
        if self.share(processes):
            self.leave()

    def share(self, processes: Processes) -> bool:
        """Whether a process of the run is asked to stop: the same answer in all of them, which all call this together."""
        if processes.world_size == 1:
            return self.asked
        if not any(largest(processes, self.asked)):
            return False
        asked = told(processes, (self.signum, self.lost))
        self.signum = next((signum for signum, _ in asked if signum is not None), None)
        self.lost = next((lost for _, lost in asked if lost is not None), None)
        self.agreed = True
        return True

    def leave(self) -> None:
        """Raises what the request is, where there is one."""
        if self.lost is not None:
            raise OwnedElsewhere(self.lost)
        if self.signum is not None:
            raise Interrupted(self.signum)
