"""APT, approximated prompt tuning (Wu et al. 2023, arXiv 2306.15706): what prompts add to attention, without them in it.

    (y + a psi(x K^T) P) e^s,  K = P + up(down(P))

    x: (B, N, width) the sublayer's input, y: (B, N, width) its output, P: (prompts, width), psi = ReLU,
    a = the largest prompt weight of a token, detached; s a scalar.

P ~ N(0, 0.02), down ~ N(0, 1), up = 0, s = 0: close to the identity at the start, not equal to it.  In the released METER
code s never trains (a substring filter misses it); here it always does.  Outside training K is folded: computed once.

Ablations, after the variants in the released files: `activation` softmax; `map` full (one width x width map) or none
(K = P); `scale` learned (a w, w = 1 at the start) or gated (g / (1 + g), g = a e^w, w = 0); roles [feed_forward_output].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.sites import Delta, Site
from vltune.tuning import Method, check_size

ACTIVATIONS = {"relu": torch.relu, "softmax": lambda scores: scores.softmax(-1)}
MAPS = ("low_rank", "full", "none")
SCALES = ("max", "learned", "gated")


class APT(Method):
    """activation: the function psi, relu or softmax.  map: what makes K of the prompts, low_rank, full or none.
    scale: the factor a, max (the largest weight), learned or gated.
    """

    size = "prompts"
    reads_input = True
    counts_with: ClassVar = {"rank": ("map", "low_rank")}

    def __init__(
        self,
        prompts: int = 200,
        rank: int = 4,
        activation: str = "relu",
        map: str = "low_rank",
        scale: str = "max",
        dropout: float = 0.0,
        prompt_std: float = 0.02,
        map_std: float = 1.0,
        roles: Sequence[str] = ("attention_output",),
    ):
        for name, value, known in (
            ("activation", activation, ACTIVATIONS),
            ("map", map, MAPS),
            ("scale", scale, SCALES),
        ):
            if value not in known:
                raise UserError(f"method.{name}={value}: must be one of {', '.join(known)}")
        self.prompts, self.rank, self.roles, self.dropout = prompts, rank, roles, dropout
        self.activation, self.map, self.scale = activation, map, scale
        self.prompt_std, self.map_std = prompt_std, map_std

    def misfit(self, site: Site) -> str | None:
        if site.in_width == site.width:
            return None
        return f"which has {site.in_width} inputs and {site.width} outputs: prompts are read by the one, added to the other"

    def delta(self, site: Site) -> Delta:
        rank = check_size("rank", self.rank, site.width) if self.map == "low_rank" else 0
        prompts = check_size("prompts", self.prompts)
        map = prompt_map(self.map, site.width, rank, self.map_std)
        start = self.prompt_std * torch.randn(prompts, site.width)
        return ApproximatedPrompts(start, self.activation, map, self.scale, self.dropout)


def prompt_map(kind: str, width: int, rank: int, std: float) -> nn.Module | None:
    """The map from prompts to what is added to their keys, zero at the start; (P, width) -> (P, width)."""
    if kind == "none":
        return None
    if kind == "full":
        layers = [nn.Linear(width, width, bias=False)]
    else:
        layers = [nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)]
        nn.init.normal_(layers[0].weight, std=std)
    nn.init.zeros_(layers[-1].weight)
    return nn.Sequential(*layers)


class ApproximatedPrompts(Delta):
    """start: (P, width), what the prompts are at first."""

    def __init__(self, start: Tensor, activation: str, map: nn.Module | None, scale: str, dropout: float):
        super().__init__()
        self.prompts = nn.Parameter(start)
        self.map = map
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.weight_scale = None if scale == "max" else nn.Parameter(torch.full((1,), float(scale == "learned")))
        self.activation, self.gated = ACTIVATIONS[activation], scale == "gated"
        self.dropout = nn.Dropout(dropout)

    def keys(self) -> Tensor:
        return self.prompts if self.map is None else self.prompts + self.map(self.prompts)

    def forward(self, y: Tensor, x: Tensor, keys: Tensor | None = None) -> Tensor:
        keys = self.keys() if keys is None else keys
        weights = self.dropout(self.activation(nn.functional.linear(x, keys)))
        weights = weights * self.strength(weights)
        y = torch.addmm(y.flatten(0, -2), weights.flatten(0, -2), self.prompts.to(weights.dtype)).view_as(y)
        return y * self.log_scale.exp()

    def strength(self, weights: Tensor) -> Tensor:
        """a: (B, N, 1)"""
        a = weights.detach().amax(-1, keepdim=True)
        if self.weight_scale is None:
            return a
        if self.gated:
            gate = a * self.weight_scale.exp()
            return gate / (gate + 1)
        return a * self.weight_scale

    def folded(self) -> Callable:
        return partial(self, keys=self.keys())

    def macs_as_published(self, site: Site, tokens: int) -> int:
        in_map = 0 if self.map is None else sum(p.numel() for p in self.map.parameters())
        return 2 * tokens * self.prompts.numel() + len(self.prompts) * in_map
