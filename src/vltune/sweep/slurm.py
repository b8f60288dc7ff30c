"""Runs as jobs of a SLURM cluster, through submitit: one array for all runs of the same size, one job for each run.

What it takes to survive lies in the run itself: it saves on SIGUSR2 and SIGTERM and every `engine.checkpoint_seconds`,
resumes from what it saved, and does nothing where it is finished.  Here a job starts that run, hands it SLURM's signals,
and has itself queued again after a warning (SIGUSR2: the time is nearly up, or a job with more right wants the node).
Where SLURM queues it again of its own accord (a lost node, `scontrol requeue`), it just starts again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from vltune.errors import UserError
from vltune.runs.signals import EX_TEMPFAIL
from vltune.sweep.job import Job, command

Took: TypeAlias = Callable[[Mapping[str, Sequence[int]]], object]
WARNING = signal.SIGUSR2  # submitit asks SLURM for it
MOST = 1000  # jobs of an array, as SLURM allows unless configured otherwise
PATIENCE = 30  # seconds with a command of SLURM's
TIMEOUTS = 10_000  # how often a job may run out of time: it goes on from its checkpoint each time


@dataclass
class RunJob:
    """What each task of a job calls: the run, in a process of its own.

    project: the folder of run.py; folder: where relative paths begin; overrides: of the run."""

    project: Path
    folder: Path
    overrides: list[str]

    def __call__(self) -> int:
        process: subprocess.Popen | None = None

        def hand_on(signum: int, frame) -> None:
            if process is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signum)

        requeue = signal.signal(WARNING, hand_on)
        signal.signal(signal.SIGTERM, hand_on)
        process = subprocess.Popen(command(self.project, self.overrides, "wait"), cwd=self.folder)
        status = process.wait()
        if status in (128 + WARNING, -WARNING) and callable(requeue):
            requeue(WARNING, None)  # submitit's: ends this process
        elif status not in (0, EX_TEMPFAIL) and int(os.environ.get("SLURM_PROCID", 0)) == 0:
            raise RuntimeError(f"{' '.join(self.overrides)}: ended with status {status}")
        return status

    def checkpoint(self):
        """submitit's question: what is to run after a requeue."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(
    project: Path, jobs: Sequence[Job], settings: Mapping, logs: Path, name: str, took: Took = lambda arrays: None
) -> dict[str, list[int]]:
    """Submits, and returns at once {SLURM's number of an array: numbers of its jobs}: all, or none.

    settings: of conf/hydra/launcher/slurm.yaml.  logs: a folder that all nodes see.  took: called with what SLURM has after
    each array, and with nothing once that was cancelled, as the rest did not follow.  UserError that holds sbatch's words
    where SLURM refuses."""
    if not shutil.which("sbatch"):
        raise UserError("hydra/launcher=slurm: no sbatch here; submit from a login node, or use hydra/launcher=local")
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    arrays: dict[str, list[int]] = {}
    try:
        for (devices, nodes), numbers in parts(jobs):
            executor = SlurmExecutor(logs, max_num_timeout=TIMEOUTS)
            at_once = share(settings["parallel"], len(numbers), len(jobs))
            executor.update_parameters(**parameters({**settings, "parallel": at_once}, devices, nodes, name))
            with undisturbed():
                with executor.batch():
                    of = [
                        executor.submit(RunJob(project.resolve(), Path.cwd(), jobs[number].overrides))
                        for number in numbers
                    ]
                arrays[of[0].job_id.partition("_")[0]] = numbers
                took(arrays)
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError, ValueError) as error:
        raise UserError(f"hydra/launcher=slurm: {refused(error)}{withdrawn(arrays, took)}") from None
    except BaseException:  # a signal, a full disk
        if said := withdrawn(arrays, took):
            print(f"hydra/launcher=slurm: {said.removeprefix('; ')}", file=sys.stderr)
        raise
    return arrays


def parts(jobs: Sequence[Job]) -> list[tuple[tuple[int, int], list[int]]]:
    """Of which each is an array: the devices and nodes of its jobs, and their numbers."""
    sizes = defaultdict(list)
    for number, job in enumerate(jobs):
        sizes[job.devices, job.nodes].append(number)
    return [(size, of[i : i + MOST]) for size, of in sizes.items() for i in range(0, len(of), MOST)]


def share(parallel: int | None, part: int, jobs: int) -> int:
    """How many jobs of an array of `part` may run at a time, so that of all arrays `parallel` do: SLURM counts each array
    for itself.  One at least, and all where there is no limit."""
    return part if parallel is None else max(1, parallel * part // jobs)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within it, signals that end this process wait, and what it starts does not hear them: an array that SLURM takes
    meanwhile, and whose number nobody reads, could not be told nor cancelled."""
    came: list[int] = []
    held = {signum: old for signum in HELD if (old := signal.getsignal(signum)) not in (None, signal.SIG_IGN)}
    for signum in held:
        signal.signal(signum, lambda signum, frame: came.append(signum))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for signum, old in held.items():
            signal.signal(signum, old)
        if came:
            signal.raise_signal(came[0])


HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def withdrawn(arrays: Mapping[str, Sequence[int]], took: Took) -> str:
    """Cancels what SLURM took before the rest failed, so that nothing is left of the sweep, and says so."""
    if not arrays:
        return ""
    try:
        cancel([*arrays])
    except UserError as error:
        return f"; what it had taken waits on: {error}"
    took({})
    return f"; the {sum(map(len, arrays.values())):,} runs that it had taken were cancelled"


def parameters(settings: Mapping, devices: int, nodes: int, name: str) -> dict:
    """submitit's, of ours: one task a device, as Fabric has it."""
    given = {key: value for key, value in settings.items() if value is not None and key not in OURS}
    if settings.get("gpus_per_task"):
        given["gpus_per_node"] = settings["gpus_per_task"] * devices
    if cpus := settings.get("cpus_per_task"):
        given["srun_args"] = [*given.get("srun_args", ()), f"--cpus-per-task={cpus}"]  # srun no longer takes sbatch's
    if settings.get("mem_gb"):
        given["mem"] = f"{settings['mem_gb']}GB"
    return given | {
        "job_name": f"vltune-{name}",
        "time": settings["timeout_min"],
        "array_parallelism": settings["parallel"],
        "nodes": nodes,
        "ntasks_per_node": devices,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True} | (settings.get("additional_parameters") or {}),
    }


OURS = {"name", "wait", "parallel", "timeout_min", "mem_gb", "gpus_per_task", "additional_parameters"}


def refused(error: Exception) -> str:
    """What sbatch said, or the setting that submitit does not know, in one line."""
    text = str(error.stderr or error) if isinstance(error, subprocess.CalledProcessError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next(
        (line for line in reversed(lines) if "error" in line.lower()), lines[0] if lines else type(error).__name__
    )


def states(arrays: Sequence[str]) -> dict[str, str]:
    """{`ARRAY_ELEMENT`: `queued`, `running`, or how it ended}, of all that SLURM knows and that did not end well."""
    if not arrays or not shutil.which("squeue"):
        return {}
    jobs = ",".join(arrays)
    ended = answer("sacct", "-n", "-P", "-X", "-j", jobs, "-o", "JobID,State")
    waiting = answer("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T", "-j", jobs)
    found = {}
    for line in [*ended.splitlines(), *waiting.splitlines()]:
        name, _, state = line.partition("|")
        element = name if "_" in name else f"{name}_0"  # an array of one is a plain job
        found[element] = STATES.get(word := state.split()[0], word)
    return {element: state for element, state in found.items() if state != "COMPLETED"}


# SLURM's word for a job that has not ended -> ours
STATES = dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "SPECIAL_EXIT"), "queued")
STATES |= dict.fromkeys(("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING"), "running")


def check_answers(arrays: Sequence[str]) -> None:
    """UserError where SLURM does not tell which of these wait or run: nobody could say which are still to be started."""
    if not arrays or not shutil.which("squeue"):
        return
    asked = ["squeue", "-h", "-j", ",".join(arrays)]
    if (reason := refusal(asked)) is not None:
        raise SilentError(f"{' '.join(asked)}: {reason}; which runs wait in SLURM cannot be told now: try again")


class SilentError(UserError):
    """SLURM does not answer."""


def answer(*asked: str) -> str:
    """What a command prints; nothing where it cannot be asked (no accounting, no controller)."""
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def cancel(arrays: Sequence[str]) -> None:
    """Their runs get SIGTERM, and save."""
    command = ["scancel", *arrays]
    if (reason := refusal(command)) is not None:
        raise UserError(f"{' '.join(command)}: {reason}")


def refusal(command: Sequence[str]) -> str | None:
    """Why SLURM did not do what it was asked; None where it did, or where the jobs ended long ago."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except OSError as error:
        return f"{error.strerror}; type it where SLURM is"
    except subprocess.TimeoutExpired:
        return f"no answer in {PATIENCE} s"
    ended = done.returncode == 0 or "Invalid job id" in done.stderr
    return None if ended else " ".join(done.stderr.split())
