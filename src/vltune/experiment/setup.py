"""What a run needs before its first step: data and identity, an empty record, the devices."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from vltune.assemble.data import make_data, open_data
from vltune.assemble.weights import fingerprints, weight_files
from vltune.engine import processor
from vltune.errors import UserError
from vltune.records import record as records
from vltune.records.provenance import provenance
from vltune.runs.lock import job
from vltune.settings.engine import Settings

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import Strategy

    from vltune.engine.session import Session
    from vltune.engine.source import Data
    from vltune.settings.config import RunConfig


def prepare(config: RunConfig) -> tuple[Data, dict]:
    """The data, made first where it can be made, and the fingerprints of all files that decide the run.  Raises UserError
    where a file is missing."""
    weight_files(config.weights, config.backbone)  # what is missing is told before data is made
    make_data(config.dataset, config.task)
    data = open_data(config)
    return data, fingerprints(config.weights, config.backbone, data.fingerprint)


def new_record(config: RunConfig, identity: dict, name: str, fingerprints: dict | None = None) -> dict:
    """A record of nothing measured yet.  fingerprints: of what the run reads; None where it reads nothing."""
    return {
        "schema": records.VERSION,
        "id": name,
        "status": "running",
        "identity": identity,
        "config": config.plain,
        "fingerprints": fingerprints,
        "metrics": {"val": None, "test": None},
        "cost": dict.fromkeys(records.COST),
        "provenance": provenance() | {"precision": config.engine.precision, "job": job()},
        "error": None,
        "sweep": config.sweep,
    }


def make_fabric(settings: Settings) -> Fabric:
    """Not launched: other processes are not started yet.  UserError where this machine has no such devices."""
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    from vltune.nn import attend

    attend.choose(settings.attention, processor.has("amx_bf16"))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with warnings.catch_warnings():
        if settings.devices * settings.nodes == 1:  # which needs none
            warnings.filterwarnings("ignore", "The `srun` command is available on your system but is not used")
        try:
            fabric = Fabric(
                accelerator=settings.accelerator,
                devices=settings.devices,
                num_nodes=settings.nodes,
                precision=settings.precision,
                strategy=strategy(settings),
            )
        except (MisconfigurationException, ValueError) as error:
            asked = ", ".join(
                f"engine.{name}={getattr(settings, name)}" for name in ("accelerator", "devices", "precision")
            )
            raise UserError(f"{asked}: not to be had here ({str(error).splitlines()[0]})") from None
    environment = getattr(fabric.strategy, "cluster_environment", None)
    if settings.nodes > 1 and not (environment and environment.creates_processes_externally):
        raise UserError(f"engine.nodes={settings.nodes}: SLURM starts the processes of several machines; here is one")
    return fabric


def strategy(settings: Settings) -> Strategy | str:
    """How the devices of a run train together; a single one has nothing to share out."""
    if (devices := settings.devices * settings.nodes) == 1:
        return "auto"
    if settings.strategy == "fsdp":
        from vltune.engine import sharded

        return sharded.strategy(devices)
    from lightning_fabric.strategies import DDPStrategy

    return DDPStrategy(broadcast_buffers=False)  # none changes in training, and what is decided before is told then


def keep_features(session: Session, splits: set[str]) -> None:
    """Has what frozen towers make of the splits' images and texts read from files, written first where there are none."""
    from vltune.features.cache import attach

    attach(session, [reader for split in sorted(splits) if (reader := session.data.split(split)) is not None])
