"""A run as it is started: in a process here, or as a job of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vltune.command_line import ALONE
from vltune.sweep.plan import Run

GOING_ON = "force=false"  # the last override of a forced run as a retry starts it


@dataclass(frozen=True)
class Job:
    """of: the command of the planned run that this is; overrides: as it is started, which a retry may change; threads: that
    its configuration says of a process."""

    of: str
    overrides: list[str]
    devices: int = 1
    nodes: int = 1
    threads: int | None = None


def job(run: Run, *more: str) -> Job:
    return Job(run.command, [*run.overrides, *more], run.devices, run.nodes)


def command(project: Path, overrides: Sequence[str], busy: str) -> list[str]:
    """One run.

    busy: what to do where another process works on it: `leave` it to that, or `wait`."""
    return [sys.executable, str(project.resolve() / "run.py"), *overrides, ALONE, f"busy={busy}"]
