"""What was started of a sweep and left to itself: files in `results/sweeps/NAME/`, and what became of it since."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from vltune.atomic import replacing
from vltune.runs import lock
from vltune.sweep.job import Job


@dataclass(frozen=True)
class Submission:
    """launcher: local or slurm.  logs: a file for each job, by its number.  process: of a local one; arrays:
    {SLURM's number: numbers of its jobs}."""

    launcher: str
    arguments: list[str]
    jobs: list[Job]
    logs: str
    started: str
    process: dict = field(default_factory=dict)
    arrays: dict[str, list[int]] = field(default_factory=dict)

    def file(self, folder: Path) -> Path:
        return folder / f"{Path(self.logs).name}.json"

    def write(self, folder: Path) -> Path:
        file = self.file(folder)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1))
        return file


def new_folder(folder: Path) -> tuple[Path, str]:
    """A folder for the logs of what is started now, and the time (UTC)."""
    now = datetime.now(timezone.utc)
    logs = folder / f"{now:%Y%m%dT%H%M%S.%f}"
    logs.mkdir(parents=True)
    return logs, now.isoformat(timespec="seconds")


def read_all(folder: Path) -> list[Submission]:
    """The oldest first.  A file that is none is told and left out: records and locks say what became of its runs."""
    return [found for file in sorted(folder.glob("*.json")) if (found := _read(file)) is not None]


def _read(file: Path) -> Submission | None:
    try:
        content = json.loads(file.read_text())
        found = Submission(**content | {"jobs": [Job(**each) for each in content["jobs"]]})
    except FileNotFoundError:  # its launcher has just ended
        return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        found = None
    if found is None or not _is_whole(found):
        _tell(f"{file}: is not what a submission wrote, and left out; delete it")
        return None
    return found


@cache
def _tell(line: str) -> None:
    """Once, however often a sweep is looked at."""
    print(line, file=sys.stderr)


def _is_whole(found: Submission) -> bool:
    def is_texts(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)

    match found.process:
        case {"boot": str() | None, "pid": int(pid), "began": str() | None} if pid > 1:
            is_started = True
        case {}:
            is_started = found.process == {}
        case _:
            is_started = False
    return (
        is_started
        and all(isinstance(each, str) for each in (found.launcher, found.logs, found.started))
        and is_texts(found.arguments)
        and all(isinstance(job.of, str) and is_texts(job.overrides) for job in found.jobs)
        and isinstance(found.arrays, dict)
        and all(
            name.isdecimal()
            and isinstance(numbers, list)
            and all(number in range(len(found.jobs)) for number in numbers)
            for name, numbers in found.arrays.items()
        )
    )


def this_process(pid: int) -> dict:
    return {"boot": lock.boot(), "pid": pid, "began": lock.began(pid)}


def is_alive(process: dict) -> bool:
    """Whether it runs on this machine; of another machine's processes nothing is known."""
    return process.get("boot") == lock.boot() is not None and not lock.has_ended(process["pid"], process["began"])


def stop(process: dict, signum: int) -> bool:
    """Whether there was one to be asked."""
    if not is_alive(process):
        return False
    os.kill(process["pid"], signum)
    return True
