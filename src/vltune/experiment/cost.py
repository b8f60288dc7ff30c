"""mode=cost: what a method costs, counted without data and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vltune.assemble.data import facts
from vltune.assemble.model import build_model, protocol
from vltune.configuration import find
from vltune.errors import UserError
from vltune.experiment.setup import new_record
from vltune.records import record as records
from vltune.runs import identity as identities
from vltune.runs.clock import Clock
from vltune.settings.config import RunConfig


def cost(config: RunConfig, overrides: list[str]) -> Path:
    """Parameters and MACs of a method on a backbone and task; neither data nor weights are read.

    UserError where the data set does not say how many rows the task's head has."""
    from vltune.costs import macs

    for number in find(config.task["_target_"]).numbered_by(config.task):
        if number not in config.plain["dataset"]:
            raise UserError(
                f"dataset.{number}: is missing; mode=cost reads no data that would tell: add +dataset.{number}=N"
            )
    clock, root = Clock(), config.results_dir
    model = build_model(config.backbone, config.task, config.method, facts(config.dataset))
    measured = macs.parameters(model) | macs.macs(model, protocol(config.backbone, model))
    identity = identities.of_cost(config.plain)
    record = new_record(config, identity, records.path(root, identity, "costs").stem) | {"status": "finished"}
    record["cost"] |= measured
    record["provenance"]["seconds"] = clock.total()
    file = records.write(record, root, "costs")
    for name, value in counts(record["cost"]):
        print(f"{name:30} {value:>18,}")
    return file


def counts(costs: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    """Each by its dotted name, that of a part such as an image too."""
    for name, value in costs.items():
        if isinstance(value, Mapping):
            yield from counts(value, f"{within}{name}.")
        elif value is not None:
            yield f"{within}{name}", value
