"""Convpass (Jie & Deng 2022, arXiv 2207.07039): a convolution between the maps of a bottleneck beside a sublayer.

    y + scale * up(a(conv(a(down(x))))),  x: (B, N, in_width) what the sublayer reads, y: (B, N, width) what it gives

conv: 3 x 3 over the grid of an image's patches, `bottleneck` channels; a: QuickGELU.  A token that is no patch is an image
of its own, of one cell, as the released code has the class token; so are the tokens of a text, which the paper has none of.
As released: dropout 0.1 before up, down Xavier-uniform, conv the identity, up and all biases 0: the identity at the start.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.sites import Delta, Site
from vltune.tuning import Method, check_size


class Convpass(Method):
    """scale: of what the adapter adds."""

    size = "bottleneck"
    reads_input = True

    def __init__(
        self,
        bottleneck: int = 8,
        scale: float = 1.0,
        dropout: float = 0.1,
        roles: Sequence[str] = ("attention_output", "feed_forward_output"),
    ):
        self.bottleneck, self.scale, self.dropout, self.roles = bottleneck, scale, dropout, roles

    def delta(self, site: Site) -> Delta:
        return ConvolutionalBottleneck(site, check_size("bottleneck", self.bottleneck), self.scale, self.dropout)


class ConvolutionalBottleneck(Delta):
    def __init__(self, site: Site, bottleneck: int, scale: float, dropout: float):
        super().__init__()
        self.layout, self.scale, self.dropout = site.layout, scale, nn.Dropout(dropout)
        self.down = nn.Linear(site.in_width, bottleneck)
        self.conv = nn.Conv2d(bottleneck, bottleneck, kernel_size=3, padding=1)
        self.up = nn.Linear(bottleneck, site.width)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.dirac_(self.conv.weight)
        for start in (self.down.bias, self.conv.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        hidden = self.convolved(quick_gelu(self.down(x)))
        return y + self.scale * self.up(self.dropout(quick_gelu(hidden)))

    def convolved(self, hidden: Tensor) -> Tensor:
        """(B, N, bottleneck) -> (B, N, bottleneck)"""
        alone = F.linear(hidden, self.conv.weight[:, :, 1, 1], self.conv.bias)
        return alone if self.layout is None else self.layout.grid.map(self.conv, hidden, alone)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)
