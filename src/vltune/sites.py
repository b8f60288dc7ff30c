"""Sites: the places in a backbone where a tuning method may act.

A backbone calls its sites by name in `forward`; a method asks for roles and says what happens there.  So a method knows
no backbone and a backbone knows no method.  There are three kinds:

`PartSite`: a linear layer or a norm, called through its site.  Roles: `query`, `key`, `value`, `projection` (attention's
four), `feed_forward_up`, `feed_forward_down`, `norm` (a block's).

`OutputSite`: a sublayer's output beside its input.  Roles: `attention_output`, `feed_forward_output` (after the
sublayer's last linear layer, before dropout and the residual), `parallel_output` (where what runs beside an attention
sublayer is added: its output in a pre-norm block, after add-and-norm in a post-norm one).

`TokenSite`: a sequence to which tokens are appended.  Roles: `memory` (what keys and values are read from),
`cross_memory` (the same where it is another stream's), `sequence` (what enters the first block of fusion).

Places: `fusion`, where both modalities meet; `text` and `image`, the towers of one modality before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.errors import UserError

ROLES = (
    *("query", "key", "value", "projection", "feed_forward_up", "feed_forward_down", "norm"),
    *("attention_output", "feed_forward_output", "parallel_output"),
    *("memory", "cross_memory", "sequence"),
)
PLACES = {"fusion": ("fusion",), "text": ("text",), "image": ("image",), "towers": ("text", "image")}
PLACES |= {"all": ("fusion", "text", "image")}


class Delta(nn.Module):
    """What a method does at one site; a subclass defines `forward` with the site's arguments, or `around`."""

    def around(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """At a `PartSite`: what takes the place of `part(x)`.  x: (B, N, in_width) -> (B, N, width)"""
        return self(part(x), x)

    def trained(self, site: Site) -> Iterable[nn.Parameter]:
        """What is trained at this site: the delta's own parameters, or some of the backbone's (`site.part.bias`)."""
        return self.parameters()

    def merge(self, site: Site) -> None:
        """Folds what is constant outside training, so that inference computes less.  Same output to 1e-5."""

    def unmerge(self, site: Site) -> None:
        """Undoes `merge`, bit for bit."""

    def macs_as_published(self, site: Site, tokens: int) -> int | None:
        """Multiply-accumulates an example that the paper counts at this site, for a sequence of `tokens`; None where it
        counts none."""
        return None


class Site(nn.Module):
    """Does nothing of its own until a method sets `delta`.  width, in_width: of what comes out and of what goes in."""

    def __init__(self, role: str, width: int, in_width: int | None = None):
        super().__init__()
        self.role, self.width, self.in_width = role, width, in_width or width
        self.place = "fusion"
        self.register_module("delta", None)

    def extra_repr(self) -> str:
        return f"{self.role}, width={self.width}"


class OutputSite(Site):
    """Passes `y` through until there is a delta.  y: (B, N, width), the hidden state here; x: (B, N, in_width), the
    sublayer's input."""

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y if self.delta is None else self.delta(y, x)


class Part(Protocol):
    """A linear layer, weight (width, in_width), or a norm, weight (width,)."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor: ...


class PartSite(Site):
    """A linear layer or a norm, called through its site: a delta may change what it reads or gives, or replace it.

    The part stays owned by the block."""

    def __init__(self, role: str, part: Part):
        super().__init__(role, part.weight.shape[0], part.weight.shape[-1])
        self._part = (part,)  # in a tuple, so that it is not registered (and saved) a second time

    @property
    def part(self) -> Part:
        return self._part[0]

    @property
    def is_linear(self) -> bool:
        return self.part.weight.dim() == 2

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x) if self.delta is None else self.delta.around(self.part, x)


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
            mask = F.pad(mask, (0, extra.shape[1]), value=True)
        return torch.cat([tokens, extra], dim=1), mask


class Method:
    """A tuning method: the roles it wants and the delta it puts there.

    A subclass that acts at sites sets `roles` in its constructor and defines `delta(site)`, or `deltas(sites)` where sites
    share something.
    kinds: of sites, where it can act; `misfit` tells what else must hold.  optional: roles that a backbone need not have.
    sites_in: one of PLACES.  size: the argument that says how large it is, which `+match=...` chooses; None where there is
    none.
    """

    roles: Sequence[str]
    optional: Sequence[str] = ()
    kinds: tuple[type[Site], ...] = (OutputSite, PartSite)
    sites_in = "fusion"
    size: str | None = None
    tunes_backbone = False

    def delta(self, site: Site) -> Delta:
        raise TypeError(f"{type(self).__name__} asks for roles {tuple(self.roles)} but makes no delta")

    def deltas(self, sites: Sequence[Site]) -> list[Delta]:
        """One for each site.  A module or a parameter that several of them hold is one: counted, trained and saved once."""
        return [self.delta(site) for site in sites]

    def misfit(self, site: Site) -> str | None:
        """Why it cannot act at a site of its kinds; None where it can."""
        return None

    def attach(self, backbone: nn.Module) -> list[nn.Parameter]:
        """Puts a delta at every site of the wanted roles and places; returns what is trained there, each parameter once.

        UserError, before anything is changed, where a role or a place is none, is not on this backbone, or is not for
        this method."""
        chosen = self.chosen(backbone)
        trained: dict[int, nn.Parameter] = {}
        for site, delta in zip(chosen, self.deltas(chosen), strict=True):
            site.delta = delta
            trained |= {id(parameter): parameter for parameter in delta.trained(site)}
        return list(trained.values())

    def chosen(self, backbone: nn.Module) -> list[Site]:
        """The sites where it acts.  Errors: `attach`'s."""
        if not hasattr(self, "roles"):
            return []
        if not is_texts(self.roles) or not self.roles:
            raise UserError(f"method.roles={self.roles}: must be a list of one or more of {', '.join(ROLES)}")
        if self.sites_in not in PLACES:
            raise UserError(f"method.sites_in={self.sites_in}: must be one of {', '.join(PLACES)}")
        for role in self.roles:
            if role not in ROLES:
                raise UserError(f"method.roles: there is no role '{role}'; there are {', '.join(ROLES)}")
        here = [site for site in sites(backbone) if site.place in PLACES[self.sites_in]]
        chosen = [site for site in here if site.role in self.roles]
        for site in chosen:
            if reason := self.cannot(site):
                able = dict.fromkeys(each.role for each in here if not self.cannot(each))
                raise UserError(
                    f"method.roles={list(self.roles)}: {type(self).__name__} cannot act at {site.role}, {reason}; "
                    f"it can at {', '.join(able) or 'none of the sites here'}"
                )
        self.check_coverage(type(backbone).__name__, here, chosen)
        return chosen

    def cannot(self, site: Site) -> str | None:
        if not isinstance(site, self.kinds):
            return _IS[type(site)]
        return self.misfit(site)

    def check_coverage(self, backbone: str, here: Sequence[Site], chosen: Sequence[Site]) -> None:
        """UserError where a role that was asked for is nowhere, or a place that was asked for has none of the roles."""
        asked, known = f"method.roles={list(self.roles)}", {site.role for site in here}
        offered = ", ".join(role for role in ROLES if role in known) or "none"
        absent = [role for role in self.roles if role not in known and role not in self.optional]
        if absent or not chosen:
            role = absent[0] if absent else self.roles[0]
            raise UserError(
                f"{asked}: {backbone} has no site {role} with method.sites_in={self.sites_in}; it offers {offered} there"
            )
        acted = {site.place for site in chosen}
        for place in dict.fromkeys(site.place for site in here):
            if place not in acted:
                raise UserError(
                    f"{asked}: with method.sites_in={self.sites_in} the {place} part of {backbone} would be left as it is, "
                    f"which has no such site; choose method.sites_in={'|'.join(sorted(acted))}, or other roles"
                )


_IS = {
    PartSite: "which is a layer, no sequence",
    OutputSite: "which is a sublayer's output, not a layer or a sequence",
    TokenSite: "which is a sequence that tokens join",
}


def is_texts(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


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
    try:
        merge(module)
        yield module
    finally:
        unmerge(module)


def check_size(name: str, value: int, most: int | None = None) -> int:
    """A size that a user typed: a whole number of at least 1 and, where it is bounded, at most `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (most is not None and value > most):
        bound = "at least 1" if most is None else f"between 1 and the width {most}"
        raise UserError(f"method.{name}={value}: must be a whole number {bound}")
    return value
