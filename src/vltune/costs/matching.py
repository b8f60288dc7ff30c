"""The size at which a method has the parameters or the MACs of a budget, solved from its closed form.

Parameters are affine in a rank, a bottleneck or a number of prompts; MACs are at most quadratic, where prompts attend to
each other.  So the counts of sizes 1, 2 and 3 hold the closed form, and whole numbers solve it exactly.  They are taken on
the meta device, where there are shapes and no numbers.  Price: by parameters 0.2 s; by MACs six forward passes, 1 s on ViLT
and 3 s on METER.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vltune.batch import Batch
from vltune.costs.macs import every_token
from vltune.errors import UserError
from vltune.model import Model
from vltune.tuning import Method, Tuning


@dataclass(frozen=True)
class Form:
    """What a method takes, by its size: the polynomial of degree two through three counts."""

    first: int
    step: int
    bend: int

    @classmethod
    def through(cls, one: int, two: int, three: int) -> Form:
        """The counts of sizes 1, 2 and 3."""
        return cls(one, two - one, three - 2 * two + one)

    def __call__(self, size: int) -> int:
        n = size - 1
        return self.first + n * self.step + n * (n - 1) // 2 * self.bend

    def nearest(self, budget: int) -> int:
        """The size, from 0 on, whose count is nearest to the budget; the smaller of two that are as near."""
        most = 1
        while self(most) < budget:
            most *= 2
        above = bisect_left(range(most), budget, key=self)
        return above - 1 if above and budget - self(above - 1) <= self(above) - budget else above


def parameters(model: Model, batch: Batch) -> Callable[[Method], int]:
    """Counts a method's own parameters."""

    def count(method: Method) -> int:
        with tuned(model.backbone, method) as tuning:
            return sum(parameter.numel() for parameter in tuning.trained)

    return count


def additional_macs(model: Model, batch: Batch) -> Callable[[Method], int]:
    """Counts what a method adds to an example's MACs: `macs.macs`'s `additional_macs`."""
    with every_token(model.backbone):
        base = forward_macs(model, batch)

    def count(method: Method) -> int:
        with every_token(model.backbone), tuned(model.backbone, method) as tuning, tuning.folded():
            check_room(model, batch)
            return forward_macs(model, batch) - base

    return count


def check_room(model: Model, batch: Batch) -> None:
    """UserError where the text that costs are counted on would be cut, so that a method's tokens beside it cost nothing."""
    if not model.backbone.offers("embed_text"):
        return
    tokens, image = batch["text_ids"].shape[1], torch.zeros(1, model.backbone.pooled_width, device="meta")
    if (room := model.backbone.text_room(image)) < tokens:
        raise UserError(
            f"costs are counted on texts of {tokens} tokens, of which with the method's there is room for {room}: "
            "match it by params"
        )


COUNTERS = {"params": parameters, "macs": additional_macs}


def solve(by: str, count: Callable[[Method], int], make: Callable[[int], Method], budget: int) -> tuple[int, int, int]:
    """The size at which `count` is nearest to the budget, the budget, and the count there.  make: a method of a size.

    UserError where the size changes nothing, or where none reaches the budget."""
    form = Form.through(*(count(make(size)) for size in (1, 2, 3)))
    name = f"{type(make(1)).__name__}'s {make(1).size}"
    if form.step <= 0:
        raise UserError(
            f"+match={by}: {name} changes nothing in that, as it folds into the backbone; match it by params"
        )
    size = form.nearest(budget)
    if size < 1:
        raise UserError(f"+match={by}: {budget:,} is too little: with {name} = 1 there are {form(1):,}")
    try:
        reached = count(make(size))
    except UserError as error:
        raise UserError(f"+match={by}: {budget:,} is too much: {error}") from None
    if reached != form(size):
        raise RuntimeError(f"{name} = {size}: {by} are {reached:,}, and {form(size):,} by a polynomial of degree two")
    return size, budget, reached


def on_meta(batch: Batch) -> dict[str, Tensor]:
    """Tokens and pixels without their numbers.  Masks and sizes keep theirs: a backbone asks what is in them."""
    return {key: value if key.endswith(("_mask", "_size")) else value.to("meta") for key, value in batch.items()}


@contextmanager
def tuned(backbone: nn.Module, method: Method) -> Iterator[Tuning]:
    """A method on a backbone on the meta device."""
    with torch.device("meta"):
        tuning = method.attach(backbone)
    try:
        yield tuning
    finally:
        tuning.detach()


@torch.no_grad()
def forward_macs(model: Model, batch: Batch) -> int:
    """MACs of a forward pass on the meta device.

    By torch's counter, of two flops a MAC: fvcore's, which records hold, gives the same sizes here, and took 13 s of a
    CPU in place of 7 for one on METER.  It is given fvcore's count of a LayerNorm; tests hold both equal."""
    norm = {torch.ops.aten.native_layer_norm: lambda shape, *_, **__: 2 * 5 * prod(shape)}
    parts = model.eval().task.counted(model.backbone, batch)  # which asks for the room of a text, and is not counted
    with FlopCounterMode(display=False, custom_mapping=norm) as counter:
        for part in parts.values():
            part()
    return counter.get_total_flops() // 2
