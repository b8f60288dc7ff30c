"""CLIP-Adapter (Gao et al. 2024, arXiv 2110.04544, eqs. 3 to 6): a bottleneck behind a tower.

    ratio A(y) + (1 - ratio) y,  A(y) = relu(up(relu(down(y)))),  y: (B, 1, dim) the embedding, no biases

As released: of images alone, ratio 0.2, a bottleneck of dim / 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vltune.sites import Delta, OutputSite
from vltune.tuning import Method, check_size


class ClipAdapter(Method):
    """ratio: of what the adapter says.  reduction: dim over the bottleneck."""

    kinds = (OutputSite,)
    sites_in = "image"

    def __init__(self, ratio: float = 0.2, reduction: int = 4, roles: Sequence[str] = ("embedding",)):
        self.ratio, self.reduction, self.roles = ratio, reduction, roles

    def misfit(self, site: OutputSite) -> str | None:
        return None if site.role == "embedding" else "which is inside a tower"

    def delta(self, site: OutputSite) -> Delta:
        bottleneck = max(1, site.width // check_size("reduction", self.reduction))
        return Mixed(site.width, bottleneck, self.ratio)


class Mixed(Delta):
    def __init__(self, width: int, bottleneck: int, ratio: float):
        super().__init__()
        self.ratio = ratio
        self.down = nn.Linear(width, bottleneck, bias=False)
        self.up = nn.Linear(bottleneck, width, bias=False)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return self.ratio * self.up(self.down(y).relu()).relu() + (1 - self.ratio) * y
