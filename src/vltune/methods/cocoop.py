"""CoCoOp (Zhou et al. 2022, arXiv 2203.05557, section 3.2): CoOp whose learned words follow from the image.

    v_m(x) = v_m + h(x),  h(x) = up(relu(down(x))),  x: (dim,) the normalised image, v_m: (width,), m = 1 ... M

h has a hidden width of dim / 16.  Price: every image has texts of its own, so a step computes batch x classes of them,
`backbone.text_chunk` at a time.  As released: a batch of one, and words that start as "a photo of a".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.sites import Delta, TokenSite
from vltune.tuning import LearnedWords, check_size


class CoCoOp(LearnedWords):
    """prompts: M, how many words are learned.
    words: a text of so many tokens that they start as; None: N(0, 0.02).  reduction: dim over the hidden
    width of h."""

    def __init__(
        self,
        prompts: int = 4,
        words: str | None = None,
        reduction: int = 16,
        init_std: float = 0.02,
        roles: Sequence[str] = ("sequence",),
    ):
        self.prompts, self.words, self.reduction, self.init_std, self.roles = prompts, words, reduction, init_std, roles

    def delta(self, site: TokenSite) -> Delta:
        hidden = max(1, site.image_width // check_size("reduction", self.reduction))
        return ConditionalContext(site, check_size("prompts", self.prompts), hidden, self.init_std)


class ConditionalContext(Delta):
    follows_image = True

    def __init__(self, site: TokenSite, prompts: int, hidden: int, init_std: float):
        super().__init__()
        self._site = (site,)
        self.prompts = nn.Parameter(init_std * torch.randn(prompts, site.width))
        self.down, self.up = nn.Linear(site.image_width, hidden), nn.Linear(hidden, site.width)

    def forward(self) -> Tensor:
        """(1, M, width), or (B, M, width) where each text is another image's"""
        image = F.normalize(self._site[0].image, dim=-1)
        return self.prompts + self.up(self.down(image).relu())[:, None]
