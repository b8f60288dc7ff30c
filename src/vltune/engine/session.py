"""A run under way: what training, evaluation and stored features all work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.engine.precision import hold
from vltune.loggers.none import NoLogger
from vltune.runs.clock import Clock

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from vltune.batch import Batch
    from vltune.engine.source import BadExamples, Data
    from vltune.loggers.logger import Logger
    from vltune.model import Model
    from vltune.runs.signals import StopRequest
    from vltune.settings.engine import Settings


@dataclass
class Session:
    """fabric: launched.  file: of the record, beside which lies what stays; folder: for what a stopped run goes on from.
    The model's frozen weights are held as `engine.precision` multiplies them.
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

    def __post_init__(self):
        hold(self.model, self.settings.precision)

    def to_device(self, batch: Batch) -> Batch:
        """For the backbone, arranged before it leaves the host."""
        return self.fabric.to_device(self.model.backbone.arrange(batch))
