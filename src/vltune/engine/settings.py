"""Everything that `conf/engine` sets, with the checks that a typing error deserves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vltune.errors import UserError

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")  # Fabric's names


@dataclass
class Settings:
    """batch_size: examples an optimiser step, over all devices; micro_batch_size: examples a forward pass (null: all that
    a device takes).  max_steps: optimiser steps, or null for `epochs`.  head_lr: rate of the task's head, or null for
    lr x head_lr_multiplier; fusion_lr_multiplier: of what lies where a two-stream backbone's streams meet.  warmup: share
    of all steps.  clip: largest gradient norm, or null.  select: `last` or `best` on validation.  val_every: epochs between
    validations where select=best.  evaluate: splits to score at the end.  eval_examples: score the first so many of each
    split only, for a trial, or null.  devices: of each node; nodes: machines of a run, whose processes SLURM starts.
    group_by_length: whether a batch holds texts of similar length.  workers: processes that read images, or null for as
    many as suit data and machine.  cache_features: whether what frozen towers make of images and texts is kept in
    `features_dir` and used again; the results are the same.
    """

    lr: float
    batch_size: int = 256
    micro_batch_size: int | None = None
    eval_batch_size: int = 64
    epochs: int = 10
    max_steps: int | None = None
    head_lr: float | None = None
    head_lr_multiplier: float = 1.0
    fusion_lr_multiplier: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    warmup: float = 0.1
    group_by_length: bool = False
    clip: float | None = None
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int | None = None
    threads: int | None = None
    select: str = "last"
    val_every: int = 1
    evaluate: tuple[str, ...] = ("val", "test")
    eval_examples: int | None = None
    checkpoint_seconds: float = 300.0
    cache_features: bool = True
    features_dir: str = "data/features"

    def __post_init__(self):
        for name in (
            "lr",
            "head_lr",
            "head_lr_multiplier",
            "fusion_lr_multiplier",
            "weight_decay",
            "eps",
            "warmup",
            "clip",
        ):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                raise UserError(f"engine.{name}={value}: must be a number")
        for name in (
            "batch_size",
            "micro_batch_size",
            "eval_batch_size",
            "eval_examples",
            "epochs",
            "max_steps",
            "devices",
            "nodes",
            "workers",
            "threads",
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int):
                raise UserError(f"engine.{name}={value}: must be a whole number")
        for name in ("batch_size", "eval_batch_size", "epochs", "devices", "nodes", "val_every"):
            if getattr(self, name) < 1:
                raise UserError(f"engine.{name}={getattr(self, name)}: must be at least 1")
        if self.max_steps is not None and self.max_steps < 1:
            raise UserError(f"engine.max_steps={self.max_steps}: must be at least 1, or null to train engine.epochs")
        if self.eval_examples is not None and self.eval_examples < 1:
            raise UserError(f"engine.eval_examples={self.eval_examples}: must be at least 1, or null for whole splits")
        if self.workers is not None and self.workers < 0:
            raise UserError(
                f"engine.workers={self.workers}: must not be negative, or null for as many as suit the machine"
            )
        if not isinstance(self.group_by_length, bool):
            raise UserError(f"engine.group_by_length={self.group_by_length}: must be true or false")
        if self.lr < 0:
            raise UserError(f"engine.lr={self.lr}: must not be negative")
        if self.precision not in PRECISIONS:
            raise UserError(f"engine.precision={self.precision}: must be auto or one of {', '.join(PRECISIONS)}")
        if self.select not in ("last", "best"):
            raise UserError(f"engine.select={self.select}: must be last or best")
        if set(self.evaluate) - {"val", "test"}:
            raise UserError(f"engine.evaluate={list(self.evaluate)}: may hold val and test")

    @property
    def rate_of_head(self) -> float:
        return self.lr * self.head_lr_multiplier if self.head_lr is None else self.head_lr

    def total_steps(self, steps_per_epoch: int) -> int:
        return self.max_steps or self.epochs * steps_per_epoch
