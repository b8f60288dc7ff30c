"""How each run of a sweep stands, from its record, its lock and the scheduler: a thousand in some seconds."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vltune.errors import UserError
from vltune.records import record as records
from vltune.runs import lock
from vltune.sweep.plan import Plan, Run

STATES = ("finished", "running", "queued", "todo", "stopped", "stale", "failed", "missing")
"""stopped: interrupted and saved.  stale: was killed, or its machine died.  missing: data or weights are not there."""
OPEN = ("todo", "stopped", "stale")
"""Nobody works on these, and they can be started."""
WAITING = ("queued", "running")
"""A scheduler's words for what has not ended."""

# What ended a run -> how the last line of its traceback tells it
CAUSES = {
    "memory": r"out of memory|OUT_OF_ME|MemoryError|DefaultCPUAllocator",
    "disk": r"cannot be written|No space left|Disk quota",
    "data": r"BadExampleError",
    "diverged": r"(loss|norm) is (nan|inf|-inf)|the training diverged",
    "time": r"TIMEOUT|DEADLINE",
    "node": r"NODE_FAIL|BOOT_FAIL",
    "cancelled": r"CANCELLED",
    "configuration": r"UserError",
}
OTHER, KILLED = "error", "killed"
RECORD = 2**17  # bytes, with its history and a long traceback


@dataclass(frozen=True)
class Standing:
    """cause: of CAUSES, OTHER or KILLED, where it failed, is stale, or was cancelled without a record.  error: its last
    line.  progress: what a running one says of itself (`runs.lock`)."""

    run: Run
    state: str
    record: dict[str, Any] = field(default_factory=dict)
    place: str | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    cause: str | None = None
    error: str = ""


def standings(
    plan: Plan, scheduled: Mapping[str, str] | None = None, since: Mapping[str, str] | None = None
) -> list[Standing]:
    """scheduled: {a run's command: what the scheduler says of it: `queued`, `running`, or how it ended}.  since: {a run's
    command: when that scheduler was given it (UTC)}."""
    scheduled, since = scheduled or {}, since or {}
    return [standing(plan.root, run, scheduled.get(run.command), since.get(run.command)) for run in plan.runs]


def standing(root: Path, run: Run, scheduled: str | None = None, since: str | None = None) -> Standing:
    """Of the records in either precision the finished one counts, else the one that was begun last; of a forced run that
    ended in the scheduler none counts that was finished before it was given there."""
    found = [(place, peek(root / place)) for place in run.places]
    for place, record in found:
        held = lock.holder(records.run_folder(root, place))
        if held is not None and not held.stale:
            return Standing(run, "running", record, place, held.content)
    if there := [each for each in found if each[1] and (each[1]["status"] == "finished" or not run.missing)]:
        place, record = max(there, key=lambda each: (each[1]["status"] == "finished", each[1]["provenance"]["started"]))
        is_earlier = record["status"] == "finished" and record["provenance"]["started"] < (since or "")
        if run.force and is_earlier and scheduled and scheduled not in WAITING:
            return unrecorded(run, scheduled)
        return recorded(root, run, record, place, scheduled)
    return Standing(run, "missing", error=run.missing) if run.missing else unrecorded(run, scheduled)


def unrecorded(run: Run, scheduled: str | None) -> Standing:
    """The state of a run that has no record, or none but the one that it is to replace."""
    waiting, why = scheduled in WAITING, cause(scheduled or "")
    if scheduled and not waiting and why != "cancelled":  # before it could write a record
        return Standing(run, "failed", cause=why or OTHER, error=scheduled)
    return Standing(run, "queued" if waiting else "todo", place=next(iter(run.places), None), cause=why)


def recorded(root: Path, run: Run, record: dict, place: str, scheduled: str | None) -> Standing:
    """The state of a run that has a record and that nobody works on; where it is forced, one that waits will replace it."""
    status, waiting = record["status"], scheduled in WAITING
    if status == "finished" and not (run.force and waiting):
        return Standing(run, "finished", record, place)
    if waiting:
        return Standing(run, "queued", record, place)
    if status == "failed":
        line = records.last_line(record)
        return Standing(run, "failed", record, place, cause=cause(line) or OTHER, error=plain(line))
    if status == "interrupted":
        return Standing(run, "stopped", record, place)
    if not scheduled and is_full(root):  # nor could it write what ended it
        return Standing(run, "stale", record, place, cause="disk", error="ended without a word: the disk is full")
    return Standing(run, "stale", record, place, cause=cause(scheduled or "") or KILLED, error=scheduled or "killed")


def is_full(root: Path) -> bool:
    """Whether a record does not fit there any more."""
    try:
        return shutil.disk_usage(root).free < RECORD
    except OSError:
        return False


def peek(file: Path) -> dict[str, Any]:
    """A record; nothing where there is none or where it is broken."""
    try:
        return records.read(file)
    except UserError:
        return {}


def plain(line: str) -> str:
    """Without the module of its exception."""
    return re.sub(r"^[\w.]+\.(\w+: )", r"\1", line)


def cause(line: str) -> str | None:
    return next((name for name, pattern in CAUSES.items() if re.search(pattern, line, re.IGNORECASE)), None)


def counts(found: list[Standing]) -> dict[str, int]:
    """{state: how many}, of all states in order."""
    counted = Counter(each.state for each in found)
    return {state: counted[state] for state in STATES}
