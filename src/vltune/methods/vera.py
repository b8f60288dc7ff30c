"""VeRA (Kopiczko et al. 2024, arXiv 2310.11454, eq. 2): LoRA's maps are random, frozen and every site's; vectors train.

    W x + b * (B (d * (A x))),  A: (rank, in_width), B: (width, rank), d: (rank,) = 0.1 and b: (width,) = 0 at the start

A and B are uniform (He et al. 2015).  Sites of other widths take their first columns and rows, as in PEFT.  They are
drawn with everything else that a seed decides and saved with the vectors: PEFT's `save_projection`, so that no file
depends on a generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import Delta, Foldable, Layer, Linear, PartSite
from vltune.tuning import LinearMethod, check_size


class VeRA(LinearMethod):
    """d_init: what the vector d starts at."""

    size = "rank"

    def __init__(self, rank: int = 256, d_init: float = 0.1, roles: Sequence[str] = ("query", "value")):
        self.rank, self.d_init, self.roles = rank, d_init, roles

    def deltas(self, sites: Sequence[PartSite]) -> list[Delta]:
        rank = check_size("rank", self.rank)
        frozen = Projections(max(site.in_width for site in sites), max(site.width for site in sites), rank)
        return [Vectors(frozen, site.in_width, site.width, self.d_init) for site in sites]


class Projections(nn.Module):
    """A and B, at the largest widths."""

    def __init__(self, in_width: int, width: int, rank: int):
        super().__init__()
        self.register_buffer("down", nn.init.kaiming_uniform_(torch.empty(rank, in_width)))
        self.register_buffer("up", nn.init.kaiming_uniform_(torch.empty(width, rank)))


class Vectors(Foldable):
    def __init__(self, frozen: Projections, in_width: int, width: int, d_init: float):
        super().__init__()
        self.frozen = frozen
        self.d = nn.Parameter(torch.full((len(frozen.down),), d_init))
        self.b = nn.Parameter(torch.zeros(width))
        self.in_width, self.width = in_width, width

    @property
    def down(self) -> Tensor:
        return self.frozen.down[:, : self.in_width]

    @property
    def up(self) -> Tensor:
        return self.frozen.up[: self.width]

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        linear = nn.functional.linear
        return y + self.b * linear(self.d * linear(x, self.down), self.up)

    def fold(self, part: Layer) -> Linear:
        return Linear(part.weight + self.b[:, None] * (self.up * self.d) @ self.down, part.bias)
