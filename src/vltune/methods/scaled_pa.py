"""Scaled parallel adapter (He et al. 2022, arXiv 2110.04366, table 1): a bottleneck beside a sublayer.

    y + scale * up(relu(down(norm(x)))),  x: (B, N, in_width) the sublayer's input, y: (B, N, width)

As released with APT: scale 4, a LayerNorm on the input, weights N(0, 0.02), biases 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vltune.sites import Delta, Site
from vltune.tuning import Method, check_size


class ScaledParallelAdapter(Method):
    """scale: of what the adapter adds."""

    size = "bottleneck"
    reads_input = True

    def __init__(
        self,
        bottleneck: int = 96,
        scale: float = 4.0,
        init_std: float = 0.02,
        roles: Sequence[str] = ("parallel_output",),
    ):
        self.bottleneck, self.scale, self.init_std, self.roles = bottleneck, scale, init_std, roles

    def delta(self, site: Site) -> Delta:
        bottleneck = check_size("bottleneck", self.bottleneck)
        return ParallelBottleneck(site.in_width, site.width, bottleneck, self.scale, self.init_std)


class ParallelBottleneck(Delta):
    def __init__(self, in_width: int, width: int, bottleneck: int, scale: float, init_std: float):
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(in_width)
        self.down = nn.Linear(in_width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=init_std)
            nn.init.zeros_(layer.bias)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y + self.scale * self.up(self.down(self.norm(x)).relu())

    def macs_as_published(self, site: Site, tokens: int) -> int:
        norm = 5 * site.in_width  # fvcore's count for an affine LayerNorm; 0.44G on ViLT holds only with it
        return tokens * (self.down.weight.numel() + self.up.weight.numel() + norm)
