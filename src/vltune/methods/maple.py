"""MaPLe (Khattak et al. 2023, arXiv 2210.03117, eqs. 2 to 7): prompts in both towers, the image's made of the text's.

    P~_i = F_i(P_i),  P_i: (prompts, text width), F_i: a linear map to the image tower's width, i = 1 ... depth

P_1 joins the input of the text tower behind its first token, P~_1 that of the image tower, before CLIP's first norm; in
each block i up to `depth` P_i and P~_i take the place of what the block before made of those tokens.  From there on they
are tokens like any other.  P_1 starts as `words`, all others N(0, 0.02).  With coupled=False the image's are parameters of
their own: independent vision-language prompting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.sites import BlockSite, Delta, Site, TokenSite
from vltune.tuning import Method, check_size, embedded


class MaPLe(Method):
    """prompts: of each block.  depth: blocks with prompts of their own.  words: a text of `prompts` tokens at least, whose
    first ones P_1 starts as; None: at random.  coupled: whether the image's prompts are made of the text's."""

    kinds = (TokenSite, BlockSite)
    size = "prompts"
    sites_in = "towers"

    def __init__(
        self,
        prompts: int = 2,
        depth: int = 9,
        words: str | None = None,
        coupled: bool = True,
        init_std: float = 0.02,
        roles: Sequence[str] = ("sequence", "block"),
    ):
        self.prompts, self.depth, self.words, self.coupled = prompts, depth, words, coupled
        self.init_std, self.roles = init_std, roles

    def deltas(self, sites: Sequence[Site]) -> list[Delta]:
        """Of each tower its sequence's, then its blocks'."""
        text, image = self.of_place(sites, "text"), self.of_place(sites, "image")
        most = min(len(text), len(image)) - 1
        depth = check_size("depth", self.depth)
        if depth > most:
            raise UserError(f"method.depth={depth}: must be at most the {most} blocks of the shorter tower")
        prompts, made = check_size("prompts", self.prompts), {}
        for level in range(depth):
            at = level + (level > 0)  # the sequence, then the blocks after the first
            own = Prompts(prompts, text[at].width, self.init_std)
            other = Coupled(own, image[at].width) if self.coupled else Prompts(prompts, image[at].width, self.init_std)
            for site, source in ((text[at], own), (image[at], other)):
                made[site] = Replacing(source, prompts, self.place(site)) if level else Joining(source, site.behind)
        return [made.get(site) or Left() for site in sites]

    def of_place(self, sites: Sequence[Site], where: str) -> list[Site]:
        found = [site for site in sites if site.place == where]
        sequence = [site for site in found if isinstance(site, TokenSite) and site.role == "sequence"]
        if len(sequence) != 1:
            raise UserError("method.roles: MaPLe needs the sequence and the blocks of a text and of an image tower")
        return sequence + [site for site in found if isinstance(site, BlockSite)]

    def place(self, site: Site) -> int | None:
        return 1 if site.place == "text" else None

    def misfit(self, site: Site) -> str | None:
        if site.role == "sequence" and site.delta is not None:
            return "where another method's tokens join, while MaPLe finds its own by their places"
        return None if site.role in ("sequence", "block") else "which is a layer's own memory"

    def start(self, deltas: Sequence[Delta], model: nn.Module, batches: Callable[[int], Iterable[dict]]) -> None:
        if self.words is not None:
            first = next(delta for delta in deltas if isinstance(delta, Joining) and isinstance(delta.source, Prompts))
            first.source.prompts.data.copy_(embedded(model, self.words, self.prompts))


class Prompts(nn.Module):
    def __init__(self, prompts: int, width: int, init_std: float):
        super().__init__()
        self.prompts = nn.Parameter(init_std * torch.randn(prompts, width))

    def forward(self) -> Tensor:
        return self.prompts


class Coupled(nn.Module):
    """F_i of another tower's prompts."""

    def __init__(self, other: Prompts, width: int):
        super().__init__()
        self.other, self.map = other, nn.Linear(other.prompts.shape[1], width)

    def forward(self) -> Tensor:
        return self.map(self.other())


class Joining(Delta):
    """behind: the backbone's norm that the sequence comes from, and these tokens too, or None."""

    counts_places = True  # of `Replacing`, in the blocks after it

    def __init__(self, source: nn.Module, behind: Callable[[Tensor], Tensor] | None):
        super().__init__()
        self.source, self.behind = source, behind

    def forward(self) -> Tensor:
        return self.source() if self.behind is None else self.behind(self.source())


class Replacing(Delta):
    """at: the place of the first prompt in the sequence; None: they are its last tokens."""

    def __init__(self, source: nn.Module, prompts: int, at: int | None):
        super().__init__()
        self.source, self.prompts, self.at = source, prompts, at

    def around(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        first = x.shape[1] - self.prompts if self.at is None else self.at
        mine = self.source().to(x.dtype).expand(len(x), -1, -1)
        return part(torch.cat([x[:, :first], mine, x[:, first + self.prompts :]], dim=1))


class Left(Delta):
    """Leaves a block as it is: the first one, which reads what joined the input, and those behind `depth`."""

    def around(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return part(x)
