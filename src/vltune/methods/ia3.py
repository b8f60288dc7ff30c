"""(IA)3 (Liu et al. 2022, arXiv 2205.05638, sec. 3.3): keys, values and hidden units are scaled by learned vectors.

    y * scale,  y: (B, N, width), scale: (width,), after a key's or a value's layer
    W (x * scale) + b,  x: (B, N, in_width) the hidden units, scale: (in_width,), before the feed-forward's second layer

Ones at the start.  The paper's T5 has no biases; here a key's and a value's bias is scaled with it, as in PEFT.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import Delta, Foldable, Layer, Linear, PartSite, scaled
from vltune.tuning import LinearMethod

READERS = ("feed_forward_down",)
"""Roles of the layers whose input is scaled; of others it is the output."""


class IA3(LinearMethod):
    def __init__(self, roles: Sequence[str] = ("key", "value", "feed_forward_down")):
        self.roles = roles

    def delta(self, site: PartSite) -> Delta:
        return ScaledInput(site.in_width) if site.role in READERS else ScaledOutput(site.width)


class ScaledOutput(Foldable):
    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y * self.scale

    def fold(self, part: Layer) -> Layer:
        return scaled(part, self.scale)


class ScaledInput(Foldable):
    def __init__(self, in_width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(in_width))

    def around(self, part: Layer, x: Tensor) -> Tensor:
        return part(x * self.scale)

    def fold(self, part: Layer) -> Layer:
        return Linear(part.weight * self.scale, part.bias)
