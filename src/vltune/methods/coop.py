"""CoOp (Zhou et al. 2022, arXiv 2109.01134, eq. 3): learned words before the name of every class.

    t_i = [SOS] [V]_1 ... [V]_M [CLASS]_i . [EOS],  [V]_m: (width,), the same for all classes

N(0, 0.02) at the start, or the embeddings of `words`.  The template is the name alone, "{}.", as the learned words stand in
the place of "a photo of a".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import Delta, TokenSite
from vltune.tuning import LearnedWords, check_size


class CoOp(LearnedWords):
    """prompts: M, how many words are learned.
    words: a text of so many tokens that they start as, such as "a photo of a"; None: at random."""

    def __init__(
        self,
        prompts: int = 16,
        words: str | None = None,
        init_std: float = 0.02,
        roles: Sequence[str] = ("sequence",),
    ):
        self.prompts, self.words, self.init_std, self.roles = prompts, words, init_std, roles

    def delta(self, site: TokenSite) -> Delta:
        return Context(check_size("prompts", self.prompts), site.width, self.init_std)


class Context(Delta):
    def __init__(self, prompts: int, width: int, init_std: float):
        super().__init__()
        self.prompts = nn.Parameter(init_std * torch.randn(prompts, width))

    def forward(self) -> Tensor:
        return self.prompts
