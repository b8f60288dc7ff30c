"""`engine`: how a run trains and evaluates, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from vltune.settings.check import checked
from vltune.settings.kinds import (
    AnyOrder,
    Before,
    Called,
    Count,
    FolderPath,
    Nonnegative,
    NotDecisive,
    Null,
    Positive,
    Share,
    Spec,
)

Splits = Annotated[Sequence[Literal["val", "test"]], Called("a list of val, test, or [] for none")]
Threads = Annotated[int, Interval(ge=1, le=1024)]


@dataclass
class Settings:
    """Of the engine; UserError for a value that no run can have."""

    lr: Nonnegative
    """AdamW's learning rate of what the method trains."""
    batch_size: Count = 256
    """Examples an optimiser step, over all devices."""
    micro_batch_size: Annotated[Count | None, Null(" for all that a device takes"), NotDecisive()] = None
    """Examples a forward pass of a device, or null for all that it takes."""
    eval_batch_size: Annotated[Count, NotDecisive()] = 64
    """Examples a forward pass where nothing is trained."""
    epochs: Count = 10
    """Passes over the training data, where max_steps is null."""
    max_steps: Annotated[Count | None, Null(" to train engine.epochs")] = None
    """Optimiser steps, or null for `epochs`."""
    head_lr: Nonnegative | None = None
    """Learning rate of the task's head, or null for lr x head_lr_multiplier."""
    head_lr_multiplier: Nonnegative = 1.0
    """How many times `lr` the head's learning rate is."""
    fusion_lr_multiplier: Nonnegative = 1.0
    """How many times `lr` the rate is of what lies where a two-stream backbone's streams meet."""
    weight_decay: Nonnegative = 0.01
    """AdamW's weight decay, of all but biases and norms."""
    betas: tuple[Share, Share] = (0.9, 0.98)
    """AdamW's two rates of forgetting: of the gradient's mean, and of its square's."""
    eps: Positive = 1e-8
    """AdamW's addend to the root of the mean square."""
    warmup: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Share of all steps in which the learning rate rises."""
    schedule: Annotated[Literal["linear", "cosine", "constant"], Before("linear")] = "linear"
    """How the learning rate falls to 0 after that, or that it stays."""
    group_by_length: Annotated[bool, Before(False)] = False
    """Whether a batch holds texts of similar length, for less padding."""
    clip: Annotated[Positive | None, Null(" for no clipping")] = None
    """Largest norm of the gradient, or null for no clipping."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    """Fabric's name of the precision; which one auto means is settled before a run begins, and recorded."""
    accelerator: Annotated[Literal["auto", "cpu", "gpu", "cuda", "mps"], NotDecisive()] = "auto"
    """Fabric's name of what it runs on."""
    devices: Annotated[int, Interval(ge=1, le=1024), NotDecisive()] = 1
    """Devices of each node."""
    nodes: Annotated[int, Interval(ge=1, le=10_000), NotDecisive()] = 1
    """Machines of a run, whose processes SLURM starts."""
    strategy: Annotated[Literal["auto", "ddp", "fsdp"], NotDecisive()] = "auto"
    """How several devices train together: `ddp`, each with the whole model, which is `auto`; `fsdp`, with a share of each
    weight, of its gradient and of what AdamW keeps of it."""
    workers: Annotated[
        Annotated[int, Interval(ge=0, le=1024)] | None, Null(" for as many as suit the machine"), NotDecisive()
    ] = None
    """Processes that read images, or null for as many as suit data and machine."""
    threads: Annotated[Threads | None, NotDecisive()] = None
    """Threads of a process, or null for torch's own number."""
    attention: Annotated[Literal["auto", "fused", "plain"], NotDecisive()] = "auto"
    """What computes attention, but in LST's side network, Swin's tower and Stable Diffusion; auto: what is faster on the
    device, by a rule of few words (src/vltune/nn/attend.py)."""
    portable: Annotated[bool | Literal["auto", "compatible"], NotDecisive()] = "auto"
    """Whether kernels are those that round alike on all Intel processors with AVX2; auto: where one thread computes on such
    a one.  compatible: those that round alike on other makers' too, and otherwise than these."""
    gradient_checkpointing: Annotated[bool, NotDecisive()] = False
    """Whether blocks are computed again for their gradients, in the place of keeping all in between: less memory."""
    compile: Annotated[bool, Before(False)] = False
    """Whether training steps run what torch.compile makes of the model, kept in features_dir; dropout then draws other
    numbers."""
    select: Literal["last", "best"] = "last"
    """The weights that are evaluated and kept: the last ones, or the best on validation."""
    val_every: Count = 1
    """With select=best: epochs between two validations."""
    evaluate: Annotated[Splits, AnyOrder()] = ("val", "test")
    """Splits that are scored at the end."""
    eval_examples: Annotated[Count | None, Null(" for whole splits"), Before(None)] = None
    """For a trial: score the first so many of each split only, or null for whole splits."""
    checkpoint_seconds: Annotated[Nonnegative, NotDecisive()] = 300.0
    """Seconds between two of a run's checkpoints."""
    cache_features: Annotated[bool, NotDecisive()] = True
    """Whether what frozen towers make of images and texts is kept and used again; results are the same but for rounding."""
    features_dir: Annotated[FolderPath, NotDecisive()] = Path("data/features")
    """Where that is kept."""

    @classmethod
    def of(cls, spec: Spec) -> Settings:
        """Of a configuration, which says every one."""
        return cls(**checked("engine", spec, cls))

    def __post_init__(self):
        for name, value in checked("engine", vars(self), Settings).items():
            setattr(self, name, value)
        self.evaluate = tuple(dict.fromkeys(self.evaluate))

    @property
    def rate_of_head(self) -> float:
        return self.lr * self.head_lr_multiplier if self.head_lr is None else self.head_lr

    def total_steps(self, steps_per_epoch: int) -> int:
        return self.max_steps or self.epochs * steps_per_epoch
