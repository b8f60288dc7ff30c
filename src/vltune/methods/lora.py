"""LoRA (Hu et al. 2022, arXiv 2106.09685, eq. 3): W' = W + B A, with B = 0 at the start.

    y + up(down(x)),  x: (B, N, in_width), y: (B, N, width), down: in_width -> rank, up: rank -> width

As released with APT: no alpha / rank scaling, A ~ N(0, 1), dropout 0.1 on the branch's input.  Outside training it merges
into the layer and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import Delta, Method, Site, check_size


class LoRA(Method):
    size = "rank"

    def __init__(
        self, rank: int = 4, dropout: float = 0.1, init_std: float = 1.0, roles: Sequence[str] = ("query", "value")
    ):
        self.rank, self.dropout, self.init_std, self.roles = rank, dropout, init_std, roles

    def delta(self, site: Site) -> Delta:
        rank = check_size("rank", self.rank, min(site.in_width, site.width))
        return LowRank(site.in_width, site.width, rank, self.dropout, self.init_std)


class LowRank(Delta):
    def __init__(self, in_width: int, width: int, rank: int, dropout: float, init_std: float):
        super().__init__()
        self.down = nn.Linear(in_width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.unmerged: tuple[nn.Parameter, ...] = ()  # a tuple, so that it is no parameter of this module
        nn.init.normal_(self.down.weight, std=init_std)
        nn.init.zeros_(self.up.weight)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        if self.unmerged:
            return y
        low = self.down(self.dropout(x))
        # One pass over y: the second product is added in place of being stored first.
        return torch.addmm(y.flatten(0, -2), low.flatten(0, -2), self.up.weight.t().to(low.dtype)).view_as(y)

    @torch.no_grad()
    def merge(self, site: Site) -> None:
        weight = site.linear.weight
        # Keeping the old weight rather than subtracting makes `unmerge` exact; a float sum is not.
        self.unmerged = (weight,)
        site.linear.weight = nn.Parameter(weight + self.up.weight @ self.down.weight, requires_grad=False)

    def unmerge(self, site: Site) -> None:
        (site.linear.weight,), self.unmerged = self.unmerged, ()

    def macs_as_published(self, site: Site, tokens: int) -> int:
        return 0  # counted merged
