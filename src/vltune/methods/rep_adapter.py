"""RepAdapter (Luo et al. 2023, arXiv 2302.08106, eq. 5-8): a linear bottleneck before a sublayer, which folds into it.

    W (x + scale * U (D x + d) + u) + b,  x: (B, N, in_width), D: (groups * units, in_width), U: block-diagonal, `groups`
    blocks of (in_width / groups, units)

One adapter is shared by the query, key and value of an attention layer, another stands before the feed-forward.  D is
Xavier-uniform, U, d and u are 0: the identity at the start.  As released: 2 groups of 4 units, dropout 0.1 on the units.
There the three projections read one sum, here each computes it, so that dropout draws for each.  In METER's cross-attention
the shared adapter stands before both streams; in a UNet's, whose text is another kind of stream, the query has one and the
key and value another.  Outside training the layer's weight is W (1 + scale U D), computed once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import Delta, Foldable, Layer, Linear, PartSite
from vltune.tuning import LinearMethod, check_parts, check_size

OF_ATTENTION = {"query", "key", "value"}


class RepAdapter(LinearMethod):
    """units: of each group; the published bottleneck is groups * units.  groups: of outputs, each of which reads its own
    units alone.  scale: of what the adapter adds."""

    size = "units"

    def __init__(
        self,
        units: int = 4,
        groups: int = 2,
        scale: float = 1.0,
        dropout: float = 0.1,
        roles: Sequence[str] = ("query", "key", "value", "feed_forward_up"),
    ):
        self.units, self.groups, self.scale, self.dropout, self.roles = units, groups, scale, dropout, roles

    def deltas(self, sites: Sequence[PartSite]) -> list[Delta]:
        made: list[Delta] = []
        served: set[str] = set()  # the roles that the last adapter stands before
        stream = None  # what these read: in cross-attention keys and values are another stream's
        for site in sites:
            reads = site.in_width, site.cross and site.role != "query"
            if not served or site.role in served or reads != stream or not {*served, site.role} <= OF_ATTENTION:
                adapter, served, stream = self.adapter(site.in_width), set(), reads
            served.add(site.role)
            made.append(BeforeLayer(adapter))
        return made

    def adapter(self, width: int) -> LinearBottleneck:
        units, groups = check_size("units", self.units), check_parts("groups", self.groups, width)
        return LinearBottleneck(width, units, groups, self.scale, self.dropout)


class LinearBottleneck(nn.Module):
    def __init__(self, width: int, units: int, groups: int, scale: float, dropout: float):
        super().__init__()
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        self.down = nn.Linear(width, groups * units)
        self.up = nn.Parameter(torch.zeros(groups, width // groups, units))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        added = nn.functional.linear(self.dropout(self.down(x)), torch.block_diag(*self.up), self.bias)
        return x + self.scale * added


class BeforeLayer(Foldable):
    def __init__(self, adapter: LinearBottleneck):
        super().__init__()
        self.adapter = adapter

    def around(self, part: Layer, x: Tensor) -> Tensor:
        return part(self.adapter(x))

    def fold(self, part: Layer) -> Linear:
        adapter, up = self.adapter, torch.block_diag(*self.adapter.up)
        weight = part.weight.to(up.dtype)
        shift = adapter.scale * weight @ (up @ adapter.down.bias + adapter.bias)
        weight = weight + adapter.scale * (weight @ up) @ adapter.down.weight
        return Linear(weight, shift if part.bias is None else part.bias + shift)
