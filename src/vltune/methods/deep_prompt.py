"""Deep prompt (VPT-deep, Jia et al. 2022, arXiv 2203.12119, eq. 6): new prompts join every layer.

    keys and values are read from [memory; prepare(P)],  P: (prompts, width), prepare: what the block does to its memory

A prompt's own query would be thrown away before the next layer, so none is computed; the paper counts it all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from vltune.sites import Delta, Site, TokenSite
from vltune.tuning import Method, check_size, started_prompts


class DeepPrompt(Method):
    kinds = (TokenSite,)
    optional = ("cross_memory",)
    size = "prompts"

    def __init__(
        self, prompts: int = 200, init_bound: float | None = None, roles: Sequence[str] = ("memory", "cross_memory")
    ):
        self.prompts, self.init_bound, self.roles = prompts, init_bound, roles

    def delta(self, site: Site) -> Delta:
        return MemoryPrompts(site.width, check_size("prompts", self.prompts), self.init_bound)


class MemoryPrompts(Delta):
    def __init__(self, width: int, prompts: int, init_bound: float | None):
        super().__init__()
        self.prompts = started_prompts(prompts, width, init_bound)

    def forward(self, prepare: Callable[[Tensor], Tensor] = lambda prompts: prompts) -> Tensor:
        return prepare(self.prompts)

    def macs_as_published(self, site: Site, tokens: int) -> int | None:
        """None where queries are of another number and width than what is read, which no paper counted."""
        if site.cross:
            return None
        prompts, width = self.prompts.shape
        return prompts * 3 * width**2 + 2 * tokens * prompts * width
