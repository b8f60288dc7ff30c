"""Shallow prompt (VPT-shallow, Jia et al. 2022, arXiv 2203.12119, eq. 4): prompts join the first layer's input.

x_0 = [x; P],  P: (prompts, width); from there on a prompt is a token like any other
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import Delta, Method, TokenSite, check_size


class ShallowPrompt(Method):
    def __init__(self, prompts: int = 200, init_bound: float | None = None, roles: Sequence[str] = ("sequence",)):
        self.prompts, self.init_bound, self.roles = prompts, init_bound, roles

    def delta(self, site: TokenSite) -> Delta:
        return InputPrompts(site.width, check_size("prompts", self.prompts), self.init_bound)


class InputPrompts(Delta):
    def __init__(self, width: int, prompts: int, init_bound: float | None):
        super().__init__()
        bound = (
            math.sqrt(3 / width) if init_bound is None else init_bound
        )  # Xavier-uniform with fan-in = fan-out = width; VPT's bound at width 768
        self.prompts = nn.Parameter(torch.empty(prompts, width).uniform_(-bound, bound))

    def forward(self) -> Tensor:
        return self.prompts

    def macs_as_published(self, site: TokenSite, tokens: int) -> int:
        prompts, width = self.prompts.shape
        linear = prompts * (4 * width**2 + 2 * width * site.hidden)
        attention = 2 * width * ((tokens + prompts) ** 2 - tokens**2)
        return site.layers * (linear + attention)
