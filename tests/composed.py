"""What `python run.py` makes of its arguments: the configuration of a run, or of many."""

from pathlib import Path

from hydra import compose

from vltune.command_line import resolve
from vltune.engine.precision import settle
from vltune.sweep.hydra_files import reading

ROOT = Path(__file__).parents[1]
_READ = {}  # the files of ROOT's conf/, each read once in a process


def composed(*overrides, project=ROOT):
    with reading(project) as files:
        if project == ROOT:
            files.read = _READ
        return resolve(compose("run", list(overrides)))


def settled(*overrides, project=ROOT):
    """With the precision that the run has here."""
    return settle(composed(*overrides, project=project))


def each_settled(jobs):
    """The same of many runs.  jobs: the overrides of each."""
    with reading(ROOT):
        return [settled(*job) for job in jobs]
