"""Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 (SLURM's warning, as submitit asks for it): finish the step, save, leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from subprocess import Popen
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
TRY_LATER = 75  # exit status of a run that another process works on: EX_TEMPFAIL of sysexits.h


class Interrupted(BaseException):
    """The run was asked to stop and has saved what it can.  No Exception, so that a broad `except` lets it pass."""

    outcome = "saved; the same command resumes it"

    def __init__(self, signum: int):
        super().__init__(signum)
        self.exit_code = 128 + signum

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.args[0]).name}: {self.outcome}"


class Elsewhere(BaseException):
    """Another process works on this run, and nothing may be written here."""

    exit_code = TRY_LATER


class StopRequest:
    """Within it, the first signal only raises a flag; a second Ctrl-C stops at once, losing what followed the last save.

    lost: why the run goes on elsewhere, once it does.  may_write: raises Elsewhere in that case; called before a checkpoint
    is written.  processes: of this run, started by this process; they are asked to stop as well.  agreed: whether all
    processes of the run know."""

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

    def check(self, fabric: Fabric | None = None) -> None:
        """fabric: of several processes that all come here, of which one that is asked to stop stops all."""
        if fabric is None or self.share(fabric):
            self.leave()

    def share(self, fabric: Fabric) -> bool:
        """Whether a process of the run is asked to stop: the same answer in all of them, which all call this together."""
        if fabric.world_size == 1:
            return self.asked
        import torch

        if not fabric.all_reduce(torch.tensor(float(self.asked), device=fabric.device), reduce_op="sum"):
            return False
        asked: list = [None] * fabric.world_size
        torch.distributed.all_gather_object(asked, (self.signum, self.lost))
        self.signum = next((signum for signum, _ in asked if signum is not None), None)
        self.lost = next((lost for _, lost in asked if lost is not None), None)
        self.agreed = True
        return True

    def leave(self) -> None:
        """Raises what the request is, where there is one."""
        if self.lost is not None:
            raise Elsewhere(self.lost)
        if self.signum is not None:
            raise Interrupted(self.signum)
