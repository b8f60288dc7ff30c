"""What a logger is: a mirror of runs in a service, or nowhere.  Its name and settings stand in conf/logger.

The record is the run; a logger only shows it.  So nothing that fails in a logger or its service ends a run or changes
what it decides: at most one warning.  Only rank zero of a run's processes has one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from vltune.loggers.sample import Look


class Logger(ABC):
    """For each run `start`, `log` now and then, `table` once it is scored, `finish`; for one that was finished before,
    `again` alone.  One logger may serve several runs, one after another.

    Its constructor takes the settings of its YAML, and raises UserError for a wrong one; it reaches no service.
    """

    @abstractmethod
    def start(self, record: dict, folder: Path) -> None:
        """record: its identity, configuration and provenance; nothing is measured yet.  folder: of the run, for files
        that a run which is taken up again finds there."""

    @abstractmethod
    def log(self, values: dict[str, float], step: int) -> None:
        """A point of the learning curves: {"train/loss": 1.2, ...}.  step: optimiser steps so far; a run that is taken up
        again gives its earlier points once more."""

    @abstractmethod
    def table(self, predictions: dict[str, list[dict]], look: Look) -> None:
        """predictions: rows by split, as the task makes them.  look: opens what they are about."""

    @abstractmethod
    def finish(self, record: dict, file: Path, exit_code: int) -> None:
        """However the run ended.  record: with all that was measured.  file: of the record; what else the run left lies
        beside it."""

    @abstractmethod
    def again(self, record: dict, file: Path, folder: Path, look: Look) -> None:
        """A run that had finished before this process began.  Arguments: as above."""
