"""Runs as copies of one process that has imported what they need: that is paid once, and a run has all else to itself.

A copy (fork) begins with modules and nothing else: what is imported here computes nothing, starts no thread and touches no
GPU.  Where a system cannot copy safely, each run is a process that begins anew.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

from vltune.runs.lock import began, has_ended

POLL = 0.02  # seconds
COPIES = sys.platform == "linux"  # elsewhere libraries do not outlive a fork
OF_RUNS = (
    "hydra.main",
    "vltune.overrides",
    "vltune.experiment.train",
    "vltune.experiment.readiness",
    "vltune.engine.train",
    "vltune.engine.artifacts",
    "vltune.evaluators.evaluate",
    "vltune.features.cache",
    "vltune.costs.macs",
    "vltune.costs.usage",
    "vltune.data.collate",
    "vltune.weights.backbones",
    "lightning_fabric",
    "fvcore.nn",
)
"""What every run imports."""


class Child:
    """A run, as `subprocess.Popen` has it: a copy that the original has started."""

    def __init__(self, original: Original, pid: int):
        self.original, self.pid, self.began = original, pid, began(pid)

    def poll(self) -> int | None:
        """Its exit status, -N where signal N killed it, None while it runs; 1 where the status went with the original."""
        status = self.original.status(self.pid)
        if status is None and self.original.is_gone and has_ended(self.pid, self.began):
            return 1
        return status

    def kill(self) -> None:
        ask(self.pid, signal.SIGKILL)


def ask(pid: int, signum: int) -> None:
    """Sends a signal to a process, where there is one."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


class Original:
    """The process that is copied, as the launcher sees it.  modules: that it imports first."""

    def __init__(self, modules: Sequence[str]):
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno()), *modules]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
            )
        self.connection = Connection(ours.detach())
        self.ended: dict[int, int] = {}
        self.is_gone = False

    def start(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> Child:
        """A copy that runs a script with its arguments.  OSError, or EOFError, where the original is no more."""
        self.connection.send((list(command), str(log), environment))
        while (told := self.connection.recv())[0] != "started":
            self.ended[told[1]] = told[2]
        return Child(self, told[1])

    def status(self, pid: int) -> int | None:
        """The exit status of a copy, None where nothing was heard of it."""
        try:
            while self.connection.poll():
                _, ended, status = self.connection.recv()
                self.ended[ended] = status
        except (EOFError, OSError):  # it was killed
            self.is_gone = True
        return self.ended.get(pid)

    def close(self) -> None:
        """It ends; copies that still run go on."""
        self.connection.close()
        self.process.wait()


def serve(connection: Connection) -> list[str] | None:
    """Starts a copy for each command, until the launcher is gone.  In a copy: the command that it is to run."""
    running: set[int] = set()
    while True:
        try:
            if connection.poll(POLL):
                command, log, environment = connection.recv()
                if not (pid := os.fork()):
                    connection.close()
                    begin(log, environment)
                    return command
                running.add(pid)
                connection.send(("started", pid))
            for pid in [*running]:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    running.discard(pid)
                    connection.send(("ended", pid, os.waitstatus_to_exitcode(status)))
        except (EOFError, OSError):
            return None


def begin(log: str, environment: dict[str, str]) -> None:
    """A copy in a session of its own, which prints to a file."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    with opened(Path(log)) as out:
        for number in (1, 2):
            os.dup2(out.fileno(), number)


def opened(log: Path) -> BinaryIO:
    """Nowhere, where that cannot be: a run is worth more than what it prints."""
    try:
        return log.open("ab")
    except OSError:
        return Path(os.devnull).open("ab")


def main(handle: int, modules: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the launcher decides
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what a library does while it is imported
        for module in modules:
            import_module(module)
    if (command := serve(Connection(handle))) is not None:
        script, *arguments = command
        sys.argv, sys.path[0] = [script, *arguments], str(Path(script).parent)
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
