"""A run under way: what training, evaluation and stored features all work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.loggers.none import NoLogger
from vltune.runs.clock import Clock

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from vltune.engine.settings import Settings
    from vltune.engine.source import BadExamples, Data
    from vltune.loggers.logger import Logger
    from vltune.model import Model
    from vltune.runs.signals import StopRequest


@dataclass
class Session:
    """fabric: launched.  file: of the record, beside which lies what stays; folder: for what a stopped run goes on from.
    label: what a person reads before figures of progress, empty for the split alone."""

    fabric: Fabric
    model: Model
    data: Data
    settings: Settings
    file: Path
    folder: Path
    stop: StopRequest
    bad: BadExamples
    label: str = ""
    logger: Logger = field(default_factory=NoLogger)
    clock: Clock = field(default_factory=Clock)
