"""LoRA (Hu et al. 2022, arXiv 2106.09685, eq. 3): W' = W + B A, with B = 0 at the start.

    W x + up(down(x)),  x: (B, N, in_width), W x: (B, N, width), down: in_width -> rank, up: rank -> width

As released with APT: no alpha / rank scaling, A ~ N(0, 1), dropout 0.1 on the branch's input, in query and value; any
other linear layer of a block takes it as well.  CLIP-LoRA (Zanella & Ben Ayed 2024, arXiv 2405.18541) scales the branch by
1 / sqrt(rank).  Outside training W' is computed once, and LoRA costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import Delta, Foldable, Layer, Linear, PartSite
from vltune.tuning import LinearMethod, check_size


class LoRA(LinearMethod):
    size = "rank"

    def __init__(
        self, rank: int = 4, dropout: float = 0.1, init_std: float = 1.0, roles: Sequence[str] = ("query", "value")
    ):
        self.rank, self.dropout, self.init_std, self.roles = rank, dropout, init_std, roles

    def delta(self, site: PartSite) -> Delta:
        rank = check_size("rank", self.rank, min(site.in_width, site.width))
        delta = LowRank(site.in_width, site.width, rank, self.dropout)
        nn.init.normal_(delta.down.weight, std=self.init_std)
        return delta


class ClipLoRA(LoRA):
    """As in CLIP-LoRA: the branch times 1 / sqrt(rank), A as linear layers start, uniform up to 1 / sqrt(in_width)."""

    def __init__(self, rank: int = 2, dropout: float = 0.25, roles: Sequence[str] = ("query", "key", "value")):
        super().__init__(rank, dropout, roles=roles)

    def delta(self, site: PartSite) -> Delta:
        rank = check_size("rank", self.rank, min(site.in_width, site.width))
        return LowRank(site.in_width, site.width, rank, self.dropout, rank**-0.5)


class LowRank(Foldable):
    def __init__(self, in_width: int, width: int, rank: int, dropout: float, scale: float = 1.0):
        super().__init__()
        self.scale = scale
        self.down = nn.Linear(in_width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.up.weight)

    def around(self, part: Layer, x: Tensor) -> Tensor:
        y, low = part(x), self.down(self.dropout(x))
        # One pass over y: the second product is added in place of being stored first.
        up = self.up.weight.t().to(low.dtype)
        return torch.addmm(y.flatten(0, -2), low.flatten(0, -2), up, alpha=self.scale).view_as(y)

    def fold(self, part: Layer) -> Linear:
        return Linear(part.weight + self.scale * (self.up.weight @ self.down.weight), part.bias)
