"""Adapter (Houlsby et al. 2019, arXiv 1902.00751): a bottleneck after each sublayer.

    y + up(relu(down(y))),  y: (B, N, width), down: width -> bottleneck, up: bottleneck -> width, both with bias

Initialised N(0, 0.01), biases 0, as released with APT: near the identity at the start.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vltune.sites import Delta, Site
from vltune.tuning import Method, check_size


class Adapter(Method):
    size = "bottleneck"

    def __init__(
        self,
        bottleneck: int = 96,
        init_std: float = 0.01,
        roles: Sequence[str] = ("attention_output", "feed_forward_output"),
    ):
        self.bottleneck, self.init_std, self.roles = bottleneck, init_std, roles

    def delta(self, site: Site) -> Delta:
        return Bottleneck(site.width, check_size("bottleneck", self.bottleneck), self.init_std)


class Bottleneck(Delta):
    def __init__(self, width: int, bottleneck: int, init_std: float):
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=init_std)
            nn.init.zeros_(layer.bias)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y + self.up(self.down(y).relu())

    def macs_as_published(self, site: Site, tokens: int) -> int:
        return tokens * 2 * self.down.weight.numel()
