"""What the schedulers say of runs that were left to them: the process that starts them here, and SLURM."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vltune.sweep import slurm
from vltune.sweep.job import GOING_ON
from vltune.sweep.submission import Submission, is_alive


def scheduled(submissions: Iterable[Submission]) -> dict[str, str]:
    """{command of a planned run: `queued`, `running`, or how SLURM says that it ended}; the newest submission's word."""
    words: dict[str, str | None] = {}
    submissions = list(submissions)
    by_element = slurm.states([array for each in submissions for array in each.arrays])
    for each in submissions:
        if each.launcher == "local" and is_alive(each.process):
            waiting = [
                job for number, job in enumerate(each.jobs) if not (Path(each.logs) / f"{number}.ended").exists()
            ]
            words |= dict.fromkeys((job.of for job in waiting), "queued")
        for array, numbers in each.arrays.items():
            for element, number in enumerate(numbers):
                words[each.jobs[number].of] = by_element.get(f"{array}_{element}")
    return {of: word for of, word in words.items() if word}


def submitted(submissions: Iterable[Submission]) -> dict[str, str]:
    """{command of a planned run: when it was left to SLURM last (UTC)}, but where that was to go on from what there was."""
    when: dict[str, str | None] = {}
    for each in submissions:
        for job in (each.jobs[number] for numbers in each.arrays.values() for number in numbers):
            when[job.of] = None if job.overrides[-1:] == [GOING_ON] else each.started
    return {of: time for of, time in when.items() if time}
