"""DoRA (Liu et al. 2024, arXiv 2402.09353, eq. 5): a weight's rows get a length of their own, and LoRA turns them.

    W' = s (W + B A),  s = m / ||W + B A||,  m = ||W|| and B = 0 at the start; norms row by row, (width,)
    W' x + b = y + (s - 1) (y - b) + s up(down(x)),  y = W x + b: (B, N, width), down: in_width -> rank, up: rank -> width

No gradient passes the norm, as the paper proposes to save memory.  No alpha / rank scaling, as with LoRA here: PEFT's with
alpha = rank.  With dropout PEFT's also drops inputs of (s - 1) W x; here it is on the low-rank branch alone, and off.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import Delta, Foldable, Layer, Linear, PartSite
from vltune.tuning import LinearMethod, check_size


class DoRA(LinearMethod):
    size = "rank"

    def __init__(self, rank: int = 4, dropout: float = 0.0, roles: Sequence[str] = ("query", "value")):
        self.rank, self.dropout, self.roles = rank, dropout, roles

    def misfit(self, site: PartSite) -> str | None:
        if site.delta is not None:
            return "where another method of the stack acts before it: it divides by the layer's own weight, so put it first"
        return super().misfit(site)

    def delta(self, site: PartSite) -> Delta:
        rank = check_size("rank", self.rank, min(site.in_width, site.width))
        return Decomposed(site.part.weight.detach(), rank, self.dropout)


class Decomposed(Foldable):
    """weight: (width, in_width), the layer's."""

    def __init__(self, weight: Tensor, rank: int, dropout: float):
        super().__init__()
        width, in_width = weight.shape
        self.down = nn.Linear(in_width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)
        self.magnitude = nn.Parameter(weight.norm(dim=1))
        self.dropout = nn.Dropout(dropout)

    def strength(self, part: Layer) -> Tensor:
        """s: (width,)"""
        with torch.no_grad():
            norm = self.turned(part).norm(dim=1)
        return self.magnitude / norm

    def turned(self, part: Layer) -> Tensor:
        return part.weight.float() + self.up.weight @ self.down.weight

    def around(self, part: Layer, x: Tensor) -> Tensor:
        y, s = part(x), self.strength(part)
        plain = y if part.bias is None else y - part.bias
        return y + (s - 1) * plain + s * self.up(self.down(self.dropout(x)))

    def fold(self, part: Layer) -> Linear:
        return Linear(self.strength(part)[:, None] * self.turned(part), part.bias)
