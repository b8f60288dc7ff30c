"""FacT in its tensor-train form (Jie & Deng 2023, arXiv 2212.03145, eq. 5): all layers' changes share two factors.

    W' = W + s V S U,  U: (rank, d) and V: (d, rank) every layer's, S: (rank, rank) each layer's own; d: the width

A layer of the feed-forward is n = 4 of d x d: its S is (n rank, rank) or (rank, n rank), and U or V acts on each n-th of
what it reads or gives.  As released V = 0 at the start, U and S are He-uniform with a = sqrt 5, and 0.1 of S's output is
dropped in training.  Layers of another d, in a tower of another width say, share factors of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import LINEAR_ROLES, Delta, Foldable, Layer, Linear, PartSite
from vltune.tuning import LinearMethod, check_size


class FacT(LinearMethod):
    """scale: of what the factors add."""

    size = "rank"

    def __init__(self, rank: int = 16, scale: float = 1.0, dropout: float = 0.1, roles: Sequence[str] = LINEAR_ROLES):
        self.rank, self.scale, self.dropout, self.roles = rank, scale, dropout, roles

    def misfit(self, site: PartSite) -> str | None:
        if max(site.in_width, site.width) % unit(site):
            return f"which has {site.in_width} inputs and {site.width} outputs: neither is a multiple of the other"
        return super().misfit(site)

    def deltas(self, sites: Sequence[PartSite]) -> list[Delta]:
        rank = check_size("rank", self.rank, min(map(unit, sites)))
        shared = {width: Factors(width, rank) for width in dict.fromkeys(map(unit, sites))}
        return [TensorTrain(shared[unit(site)], site, self.scale, self.dropout) for site in sites]


def unit(site: PartSite) -> int:
    """d: what a layer's weight is squares of."""
    return min(site.in_width, site.width)


class Factors(nn.Module):
    def __init__(self, width: int, rank: int):
        super().__init__()
        self.u = nn.Linear(width, rank, bias=False)
        self.v = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.v.weight)


class TensorTrain(Foldable):
    def __init__(self, factors: Factors, site: PartSite, scale: float, dropout: float):
        super().__init__()
        self.factors, self.scale = factors, scale
        self.inputs, self.outputs = site.in_width // unit(site), site.width // unit(site)
        rank = factors.u.out_features
        self.core = nn.Linear(self.inputs * rank, self.outputs * rank, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        low = self.core(self.factors.u(x.unflatten(-1, (self.inputs, -1))).flatten(-2))
        return y + self.scale * self.factors.v(self.dropout(low).unflatten(-1, (self.outputs, -1))).flatten(-2)

    def fold(self, part: Layer) -> Linear:
        core = self.core.weight.unflatten(0, (self.outputs, -1)).unflatten(-1, (self.inputs, -1))
        change = torch.einsum("pk,okil,lq->opiq", self.factors.v.weight, core, self.factors.u.weight)
        return Linear(part.weight + self.scale * change.flatten(2).flatten(0, 1), part.bias)
