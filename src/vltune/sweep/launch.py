"""Starting a sweep's runs and telling what became of them, for `python run.py -m` and for `vltune sweep`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from vltune.experiment.readiness import check_writable
from vltune.runs.signals import EX_TEMPFAIL
from vltune.sweep import local, slurm, status, warm
from vltune.sweep.job import Job, job
from vltune.sweep.plan import Plan
from vltune.sweep.queue import scheduled, submitted
from vltune.sweep.status import OPEN, Standing
from vltune.sweep.submission import Submission, new_folder, read_all, stop, this_process

BAD = ("failed", "missing", "stale", "stopped")  # of a sweep that nobody works on any more
LOOK = 5.0  # seconds between looks at jobs elsewhere


def standings(plan: Plan) -> list[Standing]:
    """UserError where SLURM has runs of it and does not answer."""
    submissions = read_all(plan.folder)
    slurm.check_answers([array for each in submissions for array in each.arrays])
    return status.standings(plan, scheduled(submissions), submitted(submissions))


def missing(found: Iterable[Standing]) -> dict[str, int]:
    """{what is not there: how many runs need it}"""
    return dict(Counter(each.error for each in found if each.state == "missing"))


def run(plan: Plan) -> int:
    """Runs what is open or has failed, with the launcher that was chosen.

    -> an exit status: how many runs failed (100: or more), or 128 + N where signal N stopped it."""
    before = standings(plan)
    jobs = with_threads(plan, [job(each.run) for each in before if is_due(each)])
    if jobs:
        check_writable("results_dir", plan.root)
    tell_alike(plan)
    tell_before(before)
    if not jobs:
        return exit_status(before)
    if plan.launcher["name"] == "slurm":
        return run_on_cluster(plan, jobs, plan.launcher["wait"])
    return run_here(plan, jobs, plan.launcher["parallel"])


def with_threads(plan: Plan, jobs: Iterable[Job]) -> list[Job]:
    said = {run.command: run.threads for run in plan.runs}
    return [replace(each, threads=said.get(each.of)) for each in jobs]


def run_here(plan: Plan, jobs: list[Job], parallel: int | None) -> int:
    """Runs them, and waits."""
    logs, started = new_folder(plan.folder)
    submission = Submission("local", plan.arguments, jobs, str(logs), started, process=this_process(os.getpid()))
    file = submission.write(plan.folder)
    with tqdm(total=len(jobs), unit="run", desc=plan.name) as bar:

        def ended(number: int, code: int) -> None:
            now = status.standing(plan.root, next(run for run in plan.runs if run.command == jobs[number].of))
            bar.write(one_line(now, code, logs / f"{number}.log"), file=sys.stderr)
            bar.update()

        outcome = local.launch(plan.project, jobs, logs, parallel, ended, warm.OF_RUNS)
    file.unlink()  # nothing of it is left to itself
    if outcome.signum is not None:
        how = " without force=true, which would start it anew," if any(run.force for run in plan.runs) else ""
        print(f"stopped by {name_of(outcome.signum)}: the same command{how} resumes the sweep", file=sys.stderr)
        return 128 + outcome.signum
    unread = {jobs[n].of for n, code in enumerate(outcome.statuses) if local.failed(code)}
    after = status.standings(plan)
    return exit_status(after, unread)


def one_line(now: Standing, code: int, log: Path) -> str:
    """Of a run that ended, for a person who looks on."""
    if now.state == "finished" and not local.failed(code):
        scores = (now.record["metrics"]["test"] or now.record["metrics"]["val"] or {}).items()
        return f"{now.run.label}: {', '.join(f'{name} {value:.2f}' for name, value in scores) or 'finished'}"
    if code == EX_TEMPFAIL:
        return f"{now.run.label}: another process works on it"
    if code == 0 and is_left(now):
        return f"{now.run.label}: was not started"
    if code == 0 and now.state not in BAD:
        return f"{now.run.label}: done"
    how = f"killed by {name_of(-code)}" if code < 0 else now.error or f"exit status {code}"
    if code >= 0 and now.state != "finished":  # which an earlier run is, where a forced one ended before it began
        how = f"{now.state}: {how}"
    return f"{now.run.label}: {how} ({log})"


def is_left(each: Standing) -> bool:
    """Whether what was given to a scheduler ended before it began, as what is cancelled does.  Of an evaluation, which
    makes no record, nothing else would tell."""
    return each.state == "todo" and (bool(each.run.places) or each.cause == "cancelled")


def is_due(each: Standing) -> bool:
    """Whether it is started: all that is not finished, and that nobody works on."""
    return each.state in (*OPEN, "failed") or (each.state == "finished" and each.run.force)


def name_of(signum: int) -> str:
    return signal.Signals(signum).name


def tell_alike(plan: Plan) -> None:
    if plan.alike:
        of = plan.alike + len(plan.runs)
        print(f"{plan.alike} of {of} runs are others in other words (one record), and count once", file=sys.stderr)


def tell_before(found: Sequence[Standing]) -> None:
    counted = status.counts(found)
    if counted["finished"] and not found[0].run.force:
        print(f"{counted['finished']} of {len(found)} runs finished before; force=true runs them again")
    if others := counted["running"] + counted["queued"]:
        print(f"{others} are running or queued already, and left to that")
    for what, count in missing(found).items():
        print(f"error: {count} runs cannot start: {what}", file=sys.stderr)


def exit_status(found: Sequence[Standing], failed: Iterable[str] = ()) -> int:
    """How many failed or could not start.  failed: the commands of runs that ended badly, whatever their records say."""
    failed = {*failed, *(each.run.command for each in found if each.state in BAD)}
    counted = status.counts(found)
    print(", ".join(f"{count} {name}" for name, count in counted.items() if count))
    return min(local.MOST_TOLD, len(failed))


def submit(plan: Plan, jobs: Sequence[Job]) -> Submission:
    """Starts jobs and returns at once; they outlive this process and its terminal.

    What a scheduler has is written down as soon as it has it.  Where not all can be started, what was is stopped again."""
    settings, jobs = plan.launcher, with_threads(plan, jobs)
    check_writable("results_dir", plan.root)
    logs, started = new_folder(plan.folder)
    name = "slurm" if settings["name"] == "slurm" else "local"
    submission = Submission(name, plan.arguments, jobs, str(logs), started)

    def took(arrays: Mapping[str, Sequence[int]]) -> None:
        if arrays:
            replace(submission, arrays={**arrays}).write(plan.folder)
        else:
            submission.file(plan.folder).unlink(missing_ok=True)

    try:
        if name == "slurm":
            return replace(submission, arrays=slurm.submit(plan.project, jobs, settings, logs, plan.name, took))
        submission = replace(submission, process=detached(plan.project, jobs, logs, settings.get("parallel")))
        submission.write(plan.folder)
        return submission
    except BaseException:
        stop(submission.process, signal.SIGTERM)
        if not submission.file(plan.folder).exists():
            shutil.rmtree(logs, ignore_errors=True)
        raise


def detached(project: Path, jobs: Sequence[Job], logs: Path, parallel: int | None) -> dict:
    work = logs / "work.json"
    content = {"project": str(project.resolve()), "parallel": parallel, "jobs": [asdict(each) for each in jobs]}
    work.write_text(json.dumps(content))
    with (logs / "launcher.log").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "vltune.sweep.local", str(work)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return this_process(process.pid)


def run_on_cluster(plan: Plan, jobs: list[Job], wait: bool) -> int:
    """Submits them; with `wait`, looks on until none of them is queued or running."""
    submission = submit(plan, jobs)
    print(f"submitted: {summary(submission)}")
    if not wait:
        return 0
    try:
        found = look_on(plan, {each.of for each in jobs})
        return exit_status(found, (each.run.command for each in found if is_left(each)))
    except KeyboardInterrupt:
        hint = f"{plan.typed('status')}, {plan.typed('cancel')}"
        print(f"stopped looking on; the jobs go on: {hint}", file=sys.stderr)
        return 128 + signal.SIGINT


def look_on(plan: Plan, commands: set[str]) -> list[Standing]:
    """Until nobody works on these runs any more."""
    seen: set[str] = set()
    with tqdm(total=len(commands), unit="run", desc=plan.name) as bar:
        while True:
            try:
                found = standings(plan)
            except slurm.SilentError as silent:
                bar.write(str(silent), file=sys.stderr)
                time.sleep(LOOK)
                continue
            for each in found:
                if each.run.command in commands - seen and each.state not in ("queued", "running"):
                    seen.add(each.run.command)
                    bar.write(one_line(each, 0, plan.folder), file=sys.stderr)
                    bar.update()
            if seen == commands:
                return found
            time.sleep(LOOK)


def summary(submission: Submission) -> str:
    arrays = " ".join(submission.arrays)
    where = f"SLURM {arrays}" if arrays else f"process {submission.process['pid']}"
    return f"{len(submission.jobs)} runs, {where}; logs in {submission.logs}"
