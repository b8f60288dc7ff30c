"""Compacter (Karimi Mahabadi et al. 2021, arXiv 2106.04647, eq. 5-6): an adapter whose maps are sums of Kronecker products.

    y + up(gelu(down(y))),  each map x W + b,  W = sum_i A_i (x) (u_i v_i)

    y: (B, N, width), A_i: (n, n) for i of n, u_i: (in / n, rank), v_i: (rank, out / n);  W: (in, out)

The A are one for all maps of all sites.  As released: n = 4, rank 1, a tanh approximation of GELU, A ~ N(0, 1e-4), u and v
Xavier-uniform with gain sqrt 2, biases 0: near the identity at the start.  The authors train every layer norm as well;
this does not.  Outside training W is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.sites import Delta, Site
from vltune.tuning import Method, check_parts, check_size


class Compacter(Method):
    """units: the bottleneck is n * units.  n: of Kronecker products in a map.  rank: of the u v in each.  rule_std: of the
    A at the start, their standard deviation."""

    size = "units"

    def __init__(
        self,
        units: int = 6,
        n: int = 4,
        rank: int = 1,
        rule_std: float = 1e-4,
        roles: Sequence[str] = ("attention_output", "feed_forward_output"),
    ):
        self.units, self.n, self.rank, self.rule_std, self.roles = units, n, rank, rule_std, roles

    def deltas(self, sites: Sequence[Site]) -> list[Delta]:
        units, rank = check_size("units", self.units), check_size("rank", self.rank)
        n = check_parts("n", self.n, math.gcd(*(site.width for site in sites)))
        rule = nn.Parameter(self.rule_std * torch.randn(n, n, n))
        return [
            HypercomplexBottleneck(
                HypercomplexLinear(site.width, n * units, rule, rank),
                HypercomplexLinear(n * units, site.width, rule, rank),
            )
            for site in sites
        ]


class HypercomplexLinear(nn.Module):
    """(B, N, in_width) -> (B, N, width).  rule: (n, n, n), the A_i, which others hold too."""

    def __init__(self, in_width: int, width: int, rule: nn.Parameter, rank: int):
        super().__init__()
        n = len(rule)
        self.rule = rule
        self.left = nn.Parameter(torch.empty(n, in_width // n, rank))
        self.right = nn.Parameter(torch.empty(n, rank, width // n))
        self.bias = nn.Parameter(torch.zeros(width))
        for factor in (*self.left, *self.right):
            nn.init.xavier_uniform_(factor, gain=math.sqrt(2))

    def weight(self) -> Tensor:
        """(width, in_width)"""
        blocks = torch.einsum("iab,icr,ird->bdac", self.rule, self.left, self.right)
        return blocks.flatten(2).flatten(0, 1)


class HypercomplexBottleneck(Delta):
    def __init__(self, down: HypercomplexLinear, up: HypercomplexLinear):
        super().__init__()
        self.down, self.up = down, up

    def forward(self, y: Tensor, x: Tensor, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
        down, up = weights or (self.down.weight(), self.up.weight())
        hidden = F.gelu(F.linear(y, down, self.down.bias), approximate="tanh")
        return y + F.linear(hidden, up, self.up.bias)

    def folded(self) -> Callable:
        return partial(self, weights=(self.down.weight(), self.up.weight()))
