"""One experiment: what `python run.py` does once Hydra has composed its configuration, one module for each `mode=`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vltune.assemble.match import summary
from vltune.command_line import leave
from vltune.runs.signals import Interrupted, OwnedElsewhere

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(composed: DictConfig, overrides: list[str]) -> str:
    """Runs one experiment, and prints its record's path as the last line; ends the process where it fails.

    composed: Hydra's configuration; overrides: what the user typed."""
    from vltune.experiment.readiness import ready

    try:
        config = ready(composed, overrides)
        if config.get("match"):
            print(summary(config))
        file = mode_of(config)(config, overrides)
    except (Interrupted, OwnedElsewhere) as stop:
        if stop.exit_code:
            print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except Exception as error:
        leave(error)
    print(f"record: {file}", flush=True)
    return str(file)


def mode_of(config: dict):
    from vltune.experiment.cost import cost
    from vltune.experiment.evaluate import evaluate
    from vltune.experiment.train import train

    return {"train": train, "pretrain": train, "eval": evaluate, "cost": cost}[config["mode"]]
