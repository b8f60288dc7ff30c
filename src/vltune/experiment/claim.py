"""Whose a run is: finished before, another process's, or this one's to begin, to resume or to run anew."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.errors import UserError
from vltune.records import folders
from vltune.records import record as records
from vltune.runs.lock import NAME, Lock, job
from vltune.runs.signals import Interrupted, OwnedElsewhere, StopRequest

if TYPE_CHECKING:
    from lightning_fabric import Fabric

POLL = 2.0  # seconds between looks at another process's lock
WAIT, GO, DONE, LEAVE = "wait", "go", "done", "leave"
UNFINISHED = ("running", "interrupted")


@dataclass
class Claim:
    """file: of the record; folder: of the lock, checkpoints and logs.  force: run anew what is finished, or what was begun
    otherwise; a run that was itself begun so is resumed, so that a command that is given again after a preemption gets on.
    busy: `wait` for another process that works on the run, or `leave` it to that."""

    root: Path
    file: Path
    folder: Path
    force: bool
    busy: str
    lock: Lock
    stop: StopRequest

    def __post_init__(self):
        if self.busy not in ("wait", "leave"):
            raise UserError(f"busy={self.busy}: must be wait or leave")
        self.found = self.record()
        self.waits = False

    def record(self) -> dict | None:
        """The record that is there.  One that cannot be read is none to a forced run, and raises UserError in others."""
        try:
            return records.read(self.file) if self.file.exists() else None
        except UserError as error:
            if self.force:
                return None
            raise UserError(f"{error}; force=true runs anew, and keeps that file in replaced/") from None

    def is_done(self, record: dict | None) -> bool:
        """Whether that record makes this command superfluous."""
        return bool(record) and record["status"] == "finished" and (not self.force or self.is_new(record))

    def is_new(self, record: dict) -> bool:
        """Whether this very command made it: while this process waited, or this SLURM job before it was requeued."""
        came_since = self.found is None or record["provenance"]["started"] != self.found["provenance"]["started"]
        requeued = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
        return came_since or (requeued and record["provenance"].get("job") == job())

    def take(self, fabric: Fabric) -> bool:
        """Launches the run's processes; whether it is theirs to do, or finished.  OwnedElsewhere where another has it.

        A process that starts the others asks before it does.  Those that a scheduler started meet first; rank zero asks."""
        try:
            if starts_the_others(fabric):
                while (answer := self.ask()) == WAIT:
                    self.stop.check()
                    time.sleep(POLL)
                if answer == GO:
                    fabric.launch()
                    self.agree(fabric, GO)
            else:
                fabric.launch()
                while (answer := self.agree(fabric, self.ask() if fabric.is_global_zero else WAIT)) == WAIT:
                    time.sleep(POLL)
        except Interrupted as stop:
            stop.outcome = "nothing was begun"
            raise
        if answer == LEAVE:
            raise OwnedElsewhere(f"{self.folder.name}: left to the process that works on it")
        self.stop.processes = getattr(fabric.strategy.launcher, "procs", ())
        return answer == GO

    def agree(self, fabric: Fabric, answer: str) -> str:
        """The answer that rank zero got."""
        self.stop.check(fabric)
        return fabric.broadcast(answer)

    def ask(self) -> str:
        other = self.lock.claim()
        if self.is_done(self.record()):
            self.lock.release()
            return DONE
        if other is None:
            return GO
        leave = self.busy == "leave" and not other.stale
        if leave or not self.waits:
            what = "it is left to that" if leave else "waiting (busy=leave does not)"
            print(f"{self.folder.name}: in work by {other}: {what}", file=sys.stderr)
        self.waits = True
        return LEAVE if leave else WAIT

    def begin(self) -> float:
        """Seconds that this run has taken before, where it goes on; of a killed process those that its lock held.

        A record that it replaces goes to `replaced/`."""
        before = self.record()
        for left in [*self.file.parent.glob(f".{self.file.stem}.*.tmp"), *self.folder.glob("checkpoints/.*.tmp")]:
            left.unlink(missing_ok=True)  # of killed processes
        if before is None and not self.file.exists():
            if self.force:
                self.clear()
            return 0.0
        if before and (not self.force or (before["status"] in UNFINISHED and before["config"].get("force"))):
            return max(before["provenance"]["seconds"] or 0.0, self.lock.replaced.get("seconds", 0.0))
        self.clear()
        if before:
            kept = folders.put_aside(folders.RecordFile(self.file, "records", before), self.root)
        else:
            kept = folders.put_aside_unread(self.file, self.root)
        print(
            f"the {before['status'] if before else 'unreadable'} run that was here is kept in {kept}", file=sys.stderr
        )
        return 0.0

    def clear(self) -> None:
        """Empties the run's folder of all but its lock."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != NAME and not path.name.startswith(f".{NAME}."):
                with suppress(FileNotFoundError):
                    path.unlink()


def leave_together(fabric: Fabric, stop: StopRequest, stopped: Interrupted | OwnedElsewhere) -> None:
    """At the end of a run that is stopped: Fabric kills a process that saves where one that it started fails before."""
    from lightning_fabric.plugins.environments import LightningEnvironment

    if stop.agreed:
        fabric.barrier()
        if not fabric.is_global_zero and isinstance(fabric.strategy.cluster_environment, LightningEnvironment):
            stopped.exit_code = 0  # rank zero's is the run's


def starts_the_others(fabric: Fabric) -> bool:
    """Whether this process is to start all others of its run, or is its only one."""
    strategy = fabric.strategy
    environment = getattr(strategy, "cluster_environment", None)
    if environment is None:
        return True
    return not environment.creates_processes_externally and strategy.num_processes == fabric.world_size
