"""Mona (Yin et al. 2023, arXiv 2311.15010): an adapter after each sublayer with three depth-wise convolutions.

    y + up(gelu(c + mix(c))),  c = h + (conv_3(h) + conv_5(h) + conv_7(h)) / 3,  h = down(norm(y) * a + y * b)

    y: (B, N, width), a and b: (width,), down: width -> bottleneck, mix: bottleneck -> bottleneck, up: bottleneck -> width

conv_k: k x k over the grid of an image's patches.  A token that is no patch, a text's too, is an image of its own, of one
cell; the paper has none.  As released: bottleneck 64, dropout 0.1 before up, a = 1e-6, b = 1, all else as torch starts its
layers, so that up is not 0.  There y already holds the sublayer's shortcut; here it does not, as for any adapter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.sites import Delta, Site
from vltune.tuning import Method, check_size

KERNELS = (3, 5, 7)


class Mona(Method):
    size = "bottleneck"

    def __init__(
        self,
        bottleneck: int = 64,
        dropout: float = 0.1,
        roles: Sequence[str] = ("attention_output", "feed_forward_output"),
    ):
        self.bottleneck, self.dropout, self.roles = bottleneck, dropout, roles

    def delta(self, site: Site) -> Delta:
        return MultiscaleBottleneck(site, check_size("bottleneck", self.bottleneck), self.dropout)


class MultiscaleBottleneck(Delta):
    def __init__(self, site: Site, bottleneck: int, dropout: float):
        super().__init__()
        width = site.width
        self.layout, self.dropout = site.layout, nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.norm_scale, self.scale = nn.Parameter(torch.full((width,), 1e-6)), nn.Parameter(torch.ones(width))
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.convs = nn.ModuleList(
            nn.Conv2d(bottleneck, bottleneck, kernel, padding=kernel // 2, groups=bottleneck) for kernel in KERNELS
        )
        self.mix = nn.Linear(bottleneck, bottleneck)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        hidden = self.down(self.norm(y) * self.norm_scale + y * self.scale)
        hidden = hidden + self.convolved(hidden)
        return y + self.up(self.dropout(F.gelu(hidden + self.mix(hidden))))

    def convolved(self, hidden: Tensor) -> Tensor:
        """The average of the three: (B, N, bottleneck) -> (B, N, bottleneck)"""
        centres = [(conv.weight[:, 0, conv.padding[0], conv.padding[1]], conv.bias) for conv in self.convs]
        alone = sum(hidden * weight + bias for weight, bias in centres) / len(KERNELS)
        if self.layout is None:
            return alone
        return self.layout.grid.map(lambda grid: sum(conv(grid) for conv in self.convs) / len(KERNELS), hidden, alone)
