"""AdaptFormer (Chen et al. 2022, arXiv 2205.13535, eq. 3): a scaled bottleneck beside the feed-forward.

    y + scale * up(relu(down(x))),  x: (B, N, in_width) what the feed-forward reads, y: (B, N, width) what it gives

As released: scale 0.1, dropout 0.1 in the bottleneck, down as LoRA's (He-uniform, a = sqrt 5), up and both biases 0: the
identity at the start.  The paper's x is the normalised input, which it is here; the released code reads the residual
stream before its norm.  In a post-norm block the two are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vltune.sites import Delta, Site
from vltune.tuning import Method, check_size


class AdaptFormer(Method):
    """scale: of what the adapter adds."""

    size = "bottleneck"
    reads_input = True

    def __init__(
        self,
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
        roles: Sequence[str] = ("feed_forward_output",),
    ):
        self.bottleneck, self.scale, self.dropout, self.roles = bottleneck, scale, dropout, roles

    def delta(self, site: Site) -> Delta:
        bottleneck = check_size("bottleneck", self.bottleneck)
        return BesideFeedForward(site.in_width, site.width, bottleneck, self.scale, self.dropout)


class BesideFeedForward(Delta):
    def __init__(self, in_width: int, width: int, bottleneck: int, scale: float, dropout: float):
        super().__init__()
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        self.down = nn.Linear(in_width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for start in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y + self.scale * self.up(self.dropout(self.down(x).relu()))
