"""One experiment: what `python run.py` does once Hydra has composed its configuration, one module for each `mode=`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vltune.assemble.match import summary
from vltune.command_line import leave
from vltune.runs.signals import Interrupted, OwnedElsewhere

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from omegaconf import DictConfig

    from vltune.settings.config import RunConfig


def run(composed: DictConfig, overrides: list[str]) -> str:
    """Runs one experiment, and prints its record's path as the last line; ends the process where it fails.

    composed: Hydra's configuration; overrides: what the user typed."""
    from vltune.experiment.readiness import ready

    try:
        config = ready(composed, overrides)
        if config.match:
            print(summary(config.method, config.match))
        file = mode(config.mode)(config, overrides)
    except (Exception, Interrupted, OwnedElsewhere) as error:
        leave(error)
    print(f"record: {file}", flush=True)
    return str(file)


def mode(name: str) -> Callable[[RunConfig, list[str]], Path]:
    from vltune.experiment.cost import cost
    from vltune.experiment.evaluate import evaluate
    from vltune.experiment.train import train

    return {"train": train, "pretrain": train, "eval": evaluate, "cost": cost}[name]
