"""Shallow prompt (VPT-shallow, Jia et al. 2022, arXiv 2203.12119, eq. 4): prompts join the first layer's input.

x_0 = [x; P],  P: (prompts, width); from there on a prompt is a token like any other
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vltune.sites import Delta, TokenSite
from vltune.tuning import Method, check_size, started_prompts


class ShallowPrompt(Method):
    kinds = (TokenSite,)
    size = "prompts"

    def __init__(self, prompts: int = 200, init_bound: float | None = None, roles: Sequence[str] = ("sequence",)):
        self.prompts, self.init_bound, self.roles = prompts, init_bound, roles

    def misfit(self, site: TokenSite) -> str | None:
        return None if site.role == "sequence" else "which is a layer's own memory, no sequence that goes on"

    def delta(self, site: TokenSite) -> Delta:
        return InputPrompts(site.width, check_size("prompts", self.prompts), self.init_bound)


class InputPrompts(Delta):
    def __init__(self, width: int, prompts: int, init_bound: float | None):
        super().__init__()
        self.prompts = started_prompts(prompts, width, init_bound)

    def forward(self) -> Tensor:
        return self.prompts
