"""Everything that `conf/engine` sets, with the checks that a typing error deserves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from vltune.values import Count, Folder, Nonnegative, Positive, Range, Share, Words, checked

NULL = {
    "max_steps": " to train engine.epochs",
    "eval_examples": " for whole splits",
    "micro_batch_size": " for all that a device takes",
    "workers": " for as many as suit the machine",
    "clip": " for no clipping",
}


Splits = Annotated[Sequence[str], Words(("val", "test"), empty=True, twice=True)]


@dataclass
class Settings:
    """batch_size: examples an optimiser step, over all devices; micro_batch_size: examples a forward pass (null: all that
    a device takes).  max_steps: optimiser steps, or null for `epochs`.  head_lr: rate of the task's head, or null for
    lr x head_lr_multiplier; fusion_lr_multiplier: of what lies where a two-stream backbone's streams meet.  warmup: share
    of all steps.  clip: largest gradient norm, or null.  precision, accelerator: Fabric's names; which precision auto means
    is settled before a run begins.  select: `last` or `best` on validation.  val_every: epochs between validations where
    select=best.  evaluate: splits to score at the end.  eval_examples: score the first so many of each split only, for a
    trial, or null.  devices: of each node; nodes: machines of a run, whose processes SLURM starts.  group_by_length:
    whether a batch holds texts of similar length.  workers: processes that read images, or null for as many as suit data
    and machine.  cache_features: whether what frozen towers make of images and texts is kept in `features_dir` and used
    again; the results are the same but for rounding.  threads: of a process, or null for the machine's own number.
    checkpoint_seconds: between two checkpoints.  eval_batch_size: examples a forward pass where nothing is trained.
    lr, weight_decay, betas, eps: AdamW's; epochs: passes over the training data, where max_steps is null.
    """

    lr: Nonnegative
    batch_size: Count = 256
    micro_batch_size: Count | None = None
    eval_batch_size: Count = 64
    epochs: Count = 10
    max_steps: Count | None = None
    head_lr: Nonnegative | None = None
    head_lr_multiplier: Nonnegative = 1.0
    fusion_lr_multiplier: Nonnegative = 1.0
    weight_decay: Nonnegative = 0.01
    betas: tuple[Share, Share] = (0.9, 0.98)
    eps: Nonnegative = 1e-8
    warmup: Annotated[float, Range(0, 1)] = 0.1
    group_by_length: bool = False
    clip: Positive | None = None
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Annotated[int, Range(1, 1024)] = 1
    nodes: Annotated[int, Range(1, 10_000)] = 1
    workers: Annotated[int, Range(0, 1024)] | None = None
    threads: Annotated[int, Range(1, 1024)] | None = None
    select: Literal["last", "best"] = "last"
    val_every: Count = 1
    evaluate: Splits = ("val", "test")
    eval_examples: Count | None = None
    checkpoint_seconds: Nonnegative = 300.0
    cache_features: bool = True
    features_dir: Folder = Path("data/features")

    def __post_init__(self):
        for name, kind in kinds().items():
            setattr(self, name, checked(f"engine.{name}", getattr(self, name), kind, hint=NULL.get(name, "")))
        self.evaluate = tuple(dict.fromkeys(self.evaluate))

    @property
    def rate_of_head(self) -> float:
        return self.lr * self.head_lr_multiplier if self.head_lr is None else self.head_lr

    def total_steps(self, steps_per_epoch: int) -> int:
        return self.max_steps or self.epochs * steps_per_epoch


@cache
def kinds() -> dict[str, Any]:
    """{setting: what it takes}"""
    return get_type_hints(Settings, include_extras=True)
