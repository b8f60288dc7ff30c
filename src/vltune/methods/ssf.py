"""SSF (Lian et al. 2022, arXiv 2210.08823, eq. 3): a scale and a shift after every operation of a block.

    y * scale + shift,  y: (B, N, width) of a linear layer or a norm, scale ~ N(1, 0.02), shift ~ N(0, 0.02): (width,)

Close to the identity at the start, not equal to it.  As released, but for the image's patch projection and the norm after
the last block, which no block has.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import LINEAR_ROLES, Delta, Foldable, Layer, PartSite, scaled
from vltune.tuning import Method


class SSF(Method):
    kinds = (PartSite,)

    def __init__(self, init_std: float = 0.02, roles: Sequence[str] = (*LINEAR_ROLES, "norm")):
        self.init_std, self.roles = init_std, roles

    def delta(self, site: PartSite) -> Delta:
        return ScaleAndShift(site.width, self.init_std)


class ScaleAndShift(Foldable):
    def __init__(self, width: int, init_std: float):
        super().__init__()
        self.scale = nn.Parameter(1 + init_std * torch.randn(width))
        self.shift = nn.Parameter(init_std * torch.randn(width))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, y, self.scale)

    def fold(self, part: Layer) -> Layer:
        return scaled(part, self.scale, self.shift)
