"""Runs on this machine, some at a time, each in a process of its own: one that fails, or is killed, stops no other."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TypeAlias

from vltune.data.pool import cores
from vltune.errors import UserError
from vltune.runs.signals import EX_TEMPFAIL, SIGNALS
from vltune.sweep import warm
from vltune.sweep.job import Job, command
from vltune.sweep.verdicts import stamp

Process: TypeAlias = subprocess.Popen | warm.Child
POLL = 0.05  # seconds
PATIENCE = 30.0  # with the driver of a GPU
SAVING = 9.0  # seconds that runs have to save and to end, once they are asked to
MOST_TOLD = 100  # failed runs that an exit status tells


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time: some cores, or the GPUs of a run and their share of them."""

    gpus: str | None
    threads: int | None


def slots(parallel: int | None, devices: int = 1) -> list[Slot]:
    """parallel: how many runs at a time, or None: as many as there are GPUs for, or one a core where there is none.

    devices: of a run at most, so many GPUs in each slot.  Where there are fewer a run sees all, and says so itself."""
    gpus = visible_gpus()
    groups = [",".join(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    count = parallel or len(groups) or (1 if gpus else max(1, cores() // devices))
    threads = None if count == 1 else max(1, cores() // count)
    return [Slot(groups[i % len(groups)] if groups else None, threads) for i in range(count)]


def visible_gpus() -> list[str]:
    """Of this process, as CUDA_VISIBLE_DEVICES names them; torch is not asked, which takes seconds to import."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        none = "-1", "NoDevFiles"  # behind which CUDA sees no other
        return [*takewhile(lambda name: name not in none, filter(None, (name.strip() for name in named.split(","))))]
    if not (tool := shutil.which("nvidia-smi")):
        return []
    asked = [tool, "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs
        raise UserError(f"{shlex.join(asked)}: no answer; name the GPUs in CUDA_VISIBLE_DEVICES, or none") from None
    return listed.stdout.split() if listed.returncode == 0 else []


@dataclass(frozen=True)
class Outcome:
    """statuses: the exit status of each job, -N where signal N killed it, None where it did not start.  signum: the signal
    that stopped the launcher, or None."""

    statuses: list[int | None]
    signum: int | None


def launch(
    project: Path,
    jobs: Sequence[Job],
    logs: Path,
    parallel: int | None,
    ended: Callable[[int, int], object] = lambda number, status: None,
    modules: Sequence[str] | None = None,
) -> Outcome:
    """Runs all jobs.

    logs: a folder that takes what each prints, NUMBER.log, and its exit status, NUMBER.ended.  ended: called with both.
    modules: that a process imports of which each run is a copy; None: each is a process that begins anew.  Signals are
    passed on as SIGTERM: the runs save, no more are started, the same command resumes the sweep.  A second Ctrl-C
    is passed on as one that stops at once.  What does not end within SAVING seconds is killed."""
    devices = max((job.devices for job in jobs), default=1)
    waiting, free = deque(range(len(jobs))), slots(parallel, devices)
    statuses: list[int | None] = [None] * len(jobs)
    running: dict[int, tuple[Process, Slot]] = {}
    until = math.inf
    with signals(lambda: [process for process, _ in running.values()]) as received, Starter(modules) as starter:
        while running or (waiting and not received):
            while waiting and free and not received:
                number, slot = waiting.popleft(), free.pop(0)
                given = jobs[number].overrides
                arguments = command(project, given + of_slot(slot, jobs[number]), "leave")
                running[number] = starter.start(arguments, logs / f"{number}.log", slot), slot
                if received:  # while it was started
                    warm.ask(running[number][0].pid, signal.SIGTERM)
            time.sleep(POLL)
            until = min(until, time.monotonic() + SAVING) if received else until
            if time.monotonic() > until:
                for process, _ in running.values():
                    process.kill()
            for number, (process, slot) in list(running.items()):
                if (status := process.poll()) is not None:
                    del running[number]
                    free.append(slot)
                    statuses[number] = status
                    with suppress(OSError):  # a full disk, on which the other runs may go on
                        (logs / f"{number}.ended").write_text(f"{status}\n")
                    ended(number, status)
    return Outcome(statuses, received[0] if received else None)


@contextmanager
def signals(processes: Callable[[], list[Process]]) -> Iterator[list[int]]:
    """Within it, signals to this process are noted in what it gives, and passed on."""
    received: list[int] = []

    def receive(signum: int, frame) -> None:
        again = signum == signal.SIGINT and signum in received
        received.append(signum)
        for number, sent in enumerate((signal.SIGINT, signal.SIGINT) if again else (signal.SIGTERM,)):
            if number:
                time.sleep(POLL)  # of two at once a process may see one
            for process in processes():
                warm.ask(process.pid, sent)

    previous = {signum: signal.signal(signum, receive) for signum in SIGNALS}
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def of_slot(slot: Slot, job: Job) -> list[str]:
    """The settings of a run that follow from where it runs: fewer threads, where each of its processes would have more than
    it can."""
    given = {argument.partition("=")[0] for argument in job.overrides}
    if slot.threads is None or "engine.threads" in given:
        return []
    threads = max(1, slot.threads // job.devices)
    return [f"engine.threads={threads}"] if threads < (job.threads or math.inf) else []


class Starter:
    """Starts runs, each in a session of its own, so that a terminal's Ctrl-C reaches it through the launcher alone, once.

    modules: see `launch`.  As soon as the code is another, what is copied is made anew."""

    def __init__(self, modules: Sequence[str] | None):
        self.modules = modules if warm.COPIES else None
        self.code, self.originals = None, []

    def __enter__(self) -> Starter:
        return self

    def __exit__(self, *_: object) -> None:
        for original in self.originals:
            original.close()

    def start(self, arguments: list[str], log: Path, slot: Slot) -> Process:
        environment = {"CUDA_VISIBLE_DEVICES": slot.gpus} if slot.gpus else {}
        if self.modules is not None:
            with suppress(OSError, EOFError):
                return self.original().start(arguments[1:], log, environment)
        with warm.opened(log) as out:
            return subprocess.Popen(
                arguments,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def original(self) -> warm.Original:
        if (code := stamp()) != self.code:
            self.code = code
            self.originals.append(warm.Original(self.modules))
        return self.originals[-1]


def main(file: Path) -> int:
    """A submitted sweep, in a process that outlives the terminal: `python -m vltune.sweep.local FILE`."""
    work = json.loads(file.read_text())
    jobs = [Job(**job) for job in work["jobs"]]
    outcome = launch(Path(work["project"]), jobs, file.parent, work["parallel"], modules=warm.OF_RUNS)
    if outcome.signum is not None:
        return 128 + outcome.signum
    return min(MOST_TOLD, sum(map(failed, outcome.statuses)))


def failed(status: int | None) -> bool:
    return status not in (0, EX_TEMPFAIL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
