"""LoKr (Yeh et al. 2024, arXiv 2309.14859, LyCORIS): a weight's change is a Kronecker product.

    W' = W + C (x) (U D),  C: (f, f), D: (rank, in_width / f), U: (width / f, rank); or one full map in the place of U D

D, or the full map, is 0 at the start, C and U are He-uniform with a = sqrt 5, as the authors' code has it; PEFT starts
C at 0.  No alpha / rank scaling.  The factor f divides both widths; the authors' code and PEFT take the largest divisor
up to it in silence.  In training the product is never formed: with x: (B, N, f, in_width / f) it is C (x D^T U^T).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.sites import Delta, Foldable, Layer, Linear, PartSite
from vltune.tuning import LinearMethod, check_size


class LoKr(LinearMethod):
    """factor: the side of the small square factor; it divides what a layer reads and gives.  rank: of the other factor,
    or null: full."""

    size = "rank"

    def __init__(self, factor: int = 8, rank: int | None = 4, roles: Sequence[str] = ("query", "value")):
        self.factor, self.rank, self.roles = factor, rank, roles

    def delta(self, site: PartSite) -> Delta:
        factor = check_size("factor", self.factor, min(site.in_width, site.width))
        for width in (site.in_width, site.width):
            if width % factor:
                raise UserError(f"method.factor={factor}: must divide {width}, a width of {site.role}")
        inner = site.in_width // factor, site.width // factor
        if self.rank is None:
            return Kronecker(factor, nn.Linear(*inner, bias=False))
        rank = check_size("rank", self.rank, min(inner))
        return Kronecker(factor, nn.Linear(inner[0], rank, bias=False), nn.Linear(rank, inner[1], bias=False))


class Kronecker(Foldable):
    """inner: (B, N, f, in_width / f) -> (B, N, f, width / f), one map or two."""

    def __init__(self, factor: int, *inner: nn.Linear):
        super().__init__()
        self.outer = nn.Parameter(torch.empty(factor, factor))
        nn.init.kaiming_uniform_(self.outer, a=math.sqrt(5))
        self.inner = nn.Sequential(*inner)
        nn.init.zeros_(inner[0].weight)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y + (self.outer @ self.inner(x.unflatten(-1, (len(self.outer), -1)))).flatten(-2)

    def fold(self, part: Layer) -> Linear:
        down, *up = (layer.weight for layer in self.inner)
        return Linear(part.weight + torch.kron(self.outer, up[0] @ down if up else down), part.bias)
