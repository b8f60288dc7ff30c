"""Everything that `conf/engine` sets, with the checks that a typing error deserves."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from vltune.errors import UserError

CHOICES = {  # Fabric's names; which precision auto means is settled before a run begins
    "precision": ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"),
    "accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "select": ("last", "best"),
}
LEAST = dict.fromkeys(("batch_size", "micro_batch_size", "eval_batch_size", "eval_examples", "epochs", "max_steps"), 1)
LEAST |= dict.fromkeys(("devices", "nodes", "threads", "val_every"), 1)
LEAST |= dict.fromkeys(("lr", "head_lr", "weight_decay", "eps", "warmup", "clip", "workers", "checkpoint_seconds"), 0)
NULL = {
    "max_steps": " to train engine.epochs",
    "eval_examples": " for whole splits",
    "micro_batch_size": " for all that a device takes",
    "workers": " for as many as suit the machine",
}
_KINDS = {
    "float": ((int, float), "a number"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
    "str": (str, "a word"),
}


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
        for field in fields(self):
            value, (kind, *null) = getattr(self, field.name), field.type.split(" | ")
            if kind in _KINDS and not (null and value is None):
                self._check(field.name, value, kind, bool(null))
        if not (len(self.betas) == 2 and all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in self.betas)):
            raise UserError(f"engine.betas={list(self.betas)}: must be two numbers from 0 to below 1")
        if not isinstance(self.evaluate, list | tuple) or set(self.evaluate) - {"val", "test"}:
            raise UserError(f"engine.evaluate={self.evaluate}: must be a list that holds val, test or both: [val,test]")

    def _check(self, name: str, value: Any, kind: str, may_be_null: bool) -> None:
        given, (types, named) = f"engine.{name}={value}", _KINDS[kind]
        if not isinstance(value, types) or isinstance(value, bool) != (kind == "bool"):
            raise UserError(f"{given}: must be {named}")
        if kind == "float" and not math.isfinite(value):
            raise UserError(f"{given}: must be {named}")
        if (least := LEAST.get(name)) is not None and value < least:
            null = f", or null{NULL.get(name, '')}" if may_be_null else ""
            raise UserError(f"{given}: must be at least {least}{null}")
        if (choices := CHOICES.get(name)) and value not in choices:
            raise UserError(f"{given}: must be one of {', '.join(choices)}")

    @property
    def rate_of_head(self) -> float:
        return self.lr * self.head_lr_multiplier if self.head_lr is None else self.head_lr

    def total_steps(self, steps_per_epoch: int) -> int:
        return self.max_steps or self.epochs * steps_per_epoch
