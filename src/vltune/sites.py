"""Sites: the places in a backbone where a tuning method may change hidden states.

A backbone calls its sites by name in `forward`; a method asks for roles and says what happens there.  So a method knows
no backbone and a backbone knows no method.

Roles: `query`, `key`, `value` (projections), `attention_output`, `feed_forward_output` (after the sublayer's last
linear layer, before dropout and the residual), `parallel_output` (where what runs beside an attention sublayer is added:
its output in a pre-norm block, after add-and-norm in a post-norm one), `memory` (the sequence that keys and values are
read from), `cross_memory` (the same where it is another stream's), `sequence` (what enters the first block).

Places: `fusion`, where both modalities meet, and `towers`, encoders of one modality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vltune.errors import UserError

ROLES = (
    *("query", "key", "value", "attention_output", "feed_forward_output", "parallel_output"),
    *("memory", "cross_memory", "sequence"),
)
PLACES = {"fusion": ("fusion",), "towers": ("towers",), "all": ("fusion", "towers")}


class Delta(nn.Module):
    """What a method does at one site; a subclass defines `forward` with the site's arguments."""

    def merge(self, site: Site) -> None:
        """Folds what is constant outside training, so that inference computes less.  Same output to 1e-5."""

    def unmerge(self, site: Site) -> None:
        """Undoes `merge`, bit for bit."""

    def macs_as_published(self, site: Site, tokens: int) -> int | None:
        """Multiply-accumulates an example that the paper counts at this site, for a sequence of `tokens`; None where it
        counts none."""
        return None


class Site(nn.Module):
    """Passes `y` through until a method sets `delta`.

    y: (B, N, width), the hidden state here; x: (B, N, in_width), the sublayer's input.  `linear` is the layer whose
    output the site sees, for methods that merge into it; it stays owned by the block.
    """

    def __init__(self, role: str, width: int, in_width: int | None = None, linear: nn.Linear | None = None):
        super().__init__()
        self.role, self.width, self.in_width = role, width, in_width or width
        self.place = "fusion"
        self._linear = (linear,)  # in a tuple, so that it is not registered (and saved) a second time
        self.register_module("delta", None)

    @property
    def linear(self) -> nn.Linear:
        return self._linear[0]

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y if self.delta is None else self.delta(y, x)

    def extra_repr(self) -> str:
        return f"{self.role}, width={self.width}"


class TokenSite(Site):
    """Appends a method's tokens (P, width) to a sequence, and ones to its mask.

    `prepare` is what the block does to a sequence before its keys and values are read (a norm, say).
    """

    def forward(
        self, tokens: Tensor, mask: Tensor | None, prepare: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """tokens: (B, N, width); mask: (B, N) bool, True = token, or None where nothing is masked."""
        if self.delta is None:
            return tokens, mask
        extra = self.delta(prepare) if prepare else self.delta()
        extra = extra.expand(len(tokens), -1, -1).to(tokens.dtype)
        if mask is not None:
            mask = nn.functional.pad(mask, (0, extra.shape[1]), value=True)
        return torch.cat([tokens, extra], dim=1), mask


class Method:
    """A tuning method: the roles it wants and the delta it puts there.

    A subclass sets `roles` and defines `delta(site)`.  sites_in: fusion, towers or all, the places where it acts.
    size: the argument that says how large it is, which `+match=...` chooses; None where there is none.
    """

    roles: Sequence[str] = ()
    sites_in = "fusion"
    size: str | None = None
    tunes_backbone = False

    def delta(self, site: Site) -> Delta:
        raise TypeError(f"{type(self).__name__} asks for roles {tuple(self.roles)} but makes no delta")

    def attach(self, backbone: nn.Module) -> list[nn.Parameter]:
        """Puts a delta at every site of the wanted roles and places and returns the parameters that were made."""
        if self.sites_in not in PLACES:
            raise UserError(f"method.sites_in={self.sites_in}: must be one of {', '.join(PLACES)}")
        here = [site for site in sites(backbone) if site.place in PLACES[self.sites_in]]
        known = sorted({site.role for site in here})
        for role in self.roles:
            if role not in ROLES:
                raise UserError(f"method.roles: there is no role '{role}'; there are {', '.join(ROLES)}")
        chosen = [site for site in here if site.role in self.roles]
        if self.roles and not chosen:
            raise UserError(
                f"method.roles={list(self.roles)}: {type(backbone).__name__} has no such site with "
                f"method.sites_in={self.sites_in}; it offers {', '.join(known) or 'none'} there"
            )
        made = []
        for site in chosen:
            site.delta = self.delta(site)
            made += site.delta.parameters()
        return made


def sites(module: nn.Module) -> Iterator[Site]:
    return (m for m in module.modules() if isinstance(m, Site))


def place(module: nn.Module, where: str) -> None:
    """Says of every site of a part that it lies in `where`."""
    for site in sites(module):
        site.place = where


def tuned_sites(module: nn.Module) -> list[Site]:
    return [site for site in sites(module) if site.delta is not None]


def merge(module: nn.Module) -> None:
    for site in tuned_sites(module):
        site.delta.merge(site)


def unmerge(module: nn.Module) -> None:
    for site in tuned_sites(module):
        site.delta.unmerge(site)


@contextmanager
def merged(module: nn.Module):
    """Inference with everything folded that is constant outside training."""
    merge(module)
    try:
        yield module
    finally:
        unmerge(module)


def check_size(name: str, value: int, most: int | None = None) -> int:
    """A size that a user typed: a whole number of at least 1 and, where it is bounded, at most `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (most is not None and value > most):
        bound = "at least 1" if most is None else f"between 1 and the width {most}"
        raise UserError(f"method.{name}={value}: must be a whole number {bound}")
    return value
