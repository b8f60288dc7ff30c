"""Sites: the places in a backbone where a tuning method may act.

A backbone calls its sites by name in `forward`; a method asks for roles and says what happens there.  So a method knows
no backbone and a backbone knows no method.  There are five kinds:

`PartSite`: a linear layer or a norm, called through its site.  Roles: `query`, `key`, `value`, `projection` (attention's
four), `feed_forward_up`, `feed_forward_down`, `norm` (a block's).

`OutputSite`: a sublayer's output beside its input.  Roles: `attention_output`, `feed_forward_output` (after the
sublayer's last linear layer, before dropout and the residual), `parallel_output` (where what runs beside an attention
sublayer is added: its output in a pre-norm block, after add-and-norm in a post-norm one), `embedding` (what a text or an
image is where towers alone meet, with itself beside it), `words` (what a text's tokens are before their positions, with
their ids beside them).

`TokenSite`: a sequence that tokens join.  Roles: `memory` (what keys and values are read from), `cross_memory` (the same
where it is another stream's), `sequence` (what enters the first block of fusion, or of a tower).

`KeyValueSite`: an attention layer's keys and values, after their projections, to which keys and values are appended.
Roles: `keys_values`, `cross_keys_values` (in cross-attention).

`BlockSite`: a whole block, called through its site.  Role: `block`.

Places: `fusion`, where both modalities meet; `text` and `image`, the towers of one modality before it.

A site whose sequence holds an image has a `layout`: during a forward pass `site.layout.grid` says which tokens are patches
of which grid (`vltune.layout`).  Others have None: a text's, and those whose sequence is no whole image.  Where another
token than the first stands for a sequence, its sites have a `summary`, which says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.layout import PatchLayout, Summary

LINEAR_ROLES = ("query", "key", "value", "projection", "feed_forward_up", "feed_forward_down")
ROLES = (
    *(*LINEAR_ROLES, "norm"),
    *("attention_output", "feed_forward_output", "parallel_output", "embedding", "words"),
    *("memory", "cross_memory", "sequence", "keys_values", "cross_keys_values", "block"),
)
PLACES = {"fusion": ("fusion",), "text": ("text",), "image": ("image",), "towers": ("text", "image")}
PLACES |= {"all": ("fusion", "text", "image")}


class Layer(Protocol):
    """A linear layer, weight (width, in_width), or a norm, weight (width,), which has `eps` as well."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor: ...


class Linear:
    """A linear layer that inference calls in another one's place, and that no model owns."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Norm:
    """The same of a layer norm."""

    def __init__(self, weight: Tensor, bias: Tensor | None, eps: float):
        self.weight, self.bias, self.eps = weight, bias, eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def scaled(part: Layer, scale: Tensor, shift: Tensor | None = None) -> Layer:
    """The layer that gives `part(x) * scale + shift`; scale, shift: (width,)."""
    bias = shift if part.bias is None else part.bias * scale + (0 if shift is None else shift)
    if part.weight.dim() == 2:
        return Linear(part.weight * scale[:, None], bias)
    return Norm(part.weight * scale, bias, part.eps)


class Delta(nn.Module):
    """What a method does at one site; a subclass defines `forward` with the site's arguments, or `around`.

    every_token: at a `BlockSite`, whether it looks at every token of what the block gives, also of the last layer's.
    At a `TokenSite`, follows_image: whether its tokens are made of `image`; counts_places: are found by their places.
    At a `PartSite`, own_layer: whether it computes with another layer than the site's."""

    every_token: bool = False
    follows_image: bool = False
    counts_places: bool = False
    own_layer: bool = False

    def around(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """At a `PartSite` or a `BlockSite`: what takes the place of `part(x)`.  x: (B, N, in_width) -> (B, N, width)"""
        return self(part(x), x)

    def beside(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """At a `KeyValueSite`: keys and values, (P, width) or each example's (B, P, width), to join the layer's own."""
        return self()

    def trained(self, site: Site) -> Iterable[nn.Parameter]:
        """What is trained at this site: the delta's own parameters, or some of the backbone's (`site.part.bias`)."""
        return self.parameters()

    def folded(self) -> Callable | None:
        """What inference calls in the place of `forward`, with what is constant outside training computed once: the same
        output to 1e-5.  None: nothing is saved."""
        return None

    def fold(self, part: Layer) -> Callable[[Tensor], Tensor] | None:
        """The same at a `PartSite`, in the place of `around(part, x)`, called with x.  A part that takes all of it in is a
        `Layer` again, into which others can fold."""
        act = self.folded()
        return None if act is None else lambda x: act(part(x), x)

    def macs_as_published(self, site: Site, tokens: int) -> int | None:
        """Multiply-accumulates an example that the paper counts at this site, for a sequence of `tokens`; None where it
        counts none."""
        return None


class Foldable(Delta):
    """Folds into its layer, which costs nothing in inference; papers count such a method so."""

    def macs_as_published(self, site: Site, tokens: int) -> int:
        return 0


class OwnParameters(Foldable):
    """Trains parameters of a layer itself, by their names there."""

    def __init__(self, *names: str):
        super().__init__()
        self.names = names

    def around(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return part(x)

    def trained(self, site: PartSite) -> list[nn.Parameter]:
        return [getattr(site.part, name) for name in self.names]

    def fold(self, part: Layer) -> Layer:
        return part


class Chain(Delta):
    """Several deltas at one site, each acting on what those before it give."""

    def __init__(self, *deltas: Delta):
        super().__init__()
        self.deltas = nn.ModuleList(deltas)
        for name in ("every_token", "follows_image", "own_layer"):
            setattr(self, name, any(getattr(delta, name) for delta in deltas))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        for delta in self.deltas:
            y = delta(y, x)
        return y

    def around(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        for delta in self.deltas:
            part = partial(delta.around, part)
        return part(x)

    def folded(self) -> Callable:
        acts = [delta.folded() or delta for delta in self.deltas]

        def one_after_the_other(y: Tensor, x: Tensor) -> Tensor:
            for act in acts:
                y = act(y, x)
            return y

        return one_after_the_other

    def fold(self, part: Layer) -> Callable[[Tensor], Tensor]:
        for delta in self.deltas:
            folded = delta.fold(part) if hasattr(part, "weight") else None
            part = folded or partial(delta.around, part)
        return part


class Joined(Chain):
    """Several deltas at one sequence: the tokens of all."""

    def forward(self, *prepare: Callable[[Tensor], Tensor]) -> Tensor:
        found = [delta(*prepare) for delta in self.deltas]
        batch = torch.broadcast_shapes(*(tokens.shape[:-2] for tokens in found))
        return torch.cat([tokens.expand(*batch, -1, -1) for tokens in found], dim=-2)

    def folded(self) -> None:
        return None


class JoinedPairs(Chain):
    """Several deltas at one attention layer: the keys and the values of all."""

    def beside(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        pairs = zip(*(delta.beside(keys, values) for delta in self.deltas), strict=True)
        return tuple(torch.cat([one.expand(len(keys), -1, -1) for one in each], dim=1) for each in pairs)

    def folded(self) -> Callable[[], tuple[Tensor, Tensor]] | None:
        acts = [delta.folded() for delta in self.deltas]
        return None if None in acts else lambda: tuple(map(torch.cat, zip(*(act() for act in acts), strict=True)))


class Site(nn.Module):
    """Does nothing of its own until a method puts a delta there.  width, in_width: of what comes out and of what goes in.

    cross: whether it lies in a UNet's cross-attention, where keys and values are a text's.
    what: it is, in a message.  together: how several deltas act there."""

    what: ClassVar[str]
    together: ClassVar[type[Chain]] = Chain

    def __init__(self, role: str, width: int, in_width: int | None = None):
        super().__init__()
        self.role, self.width, self.in_width = role, width, in_width or width
        self.place = "fusion"
        self.cross = False
        self.layout: PatchLayout | None = None
        self.summary: Summary | None = None
        self.register_module("delta", None)
        self._folded: tuple[Callable, ...] = ()  # in a tuple, so that no module is registered a second time

    def put(self, delta: Delta) -> None:
        before = self.delta.deltas if isinstance(self.delta, Chain) else [self.delta]
        self.delta = delta if self.delta is None else self.together(*before, delta)

    def fold(self) -> None:
        """Has inference call what the delta folds into, where it does."""
        folded = self._fold()
        self._folded = () if folded is None else (folded,)

    def unfold(self) -> None:
        self._folded = ()

    def _fold(self) -> Callable | None:
        return self.delta.folded()

    @property
    def acts(self) -> Callable:
        """The delta, or what it folds into."""
        return self._folded[0] if self._folded else self.delta

    def extra_repr(self) -> str:
        return f"{self.role}, width={self.width}"


class OutputSite(Site):
    """Passes `y` through until there is a delta.  y: (B, N, width), the hidden state here; x: (B, N, in_width), the
    sublayer's input."""

    what = "a sublayer's output"

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y if self.delta is None else self.acts(y, x)


class PartSite(Site):
    """A linear layer or a norm, called through its site: a delta may change what it reads or gives, or replace it.

    The part stays owned by the block."""

    what = "a layer"

    def __init__(self, role: str, part: Layer):
        super().__init__(role, part.weight.shape[0], part.weight.shape[-1])
        self._part = (part,)

    @property
    def part(self) -> Layer:
        return self._part[0]

    @property
    def is_linear(self) -> bool:
        return self.part.weight.dim() == 2

    def forward(self, x: Tensor) -> Tensor:
        if self.delta is None:
            return self.part(x)
        return self._folded[0](x) if self._folded else self.delta.around(self.part, x)

    def _fold(self) -> Callable[[Tensor], Tensor] | None:
        folded, part = self.delta.fold(self.part), self.part
        if isinstance(folded, Linear):  # held as what it stands for is
            return Linear(folded.weight.to(part.weight.dtype), folded.bias)
        return folded


class BlockSite(Site):
    """A whole block, called through its site: a delta may look at it, change what it reads or gives, or leave it out.

    mask: (B, N) bool of the sequence that the block is reading, True = token; (B, N, N) where a token sees those before it
    alone, or None where nothing is masked."""

    what = "a whole block"

    def __init__(self, role: str, width: int):
        super().__init__(role, width)
        self.mask: Tensor | None = None

    def forward(self, x: Tensor, block: Callable[[Tensor], Tensor], mask: Tensor | None = None) -> Tensor:
        """x: (B, N, width) -> what the block gives: (B, N, width), or (B, 1, width) where only the first token is asked
        for and `every_token` is not."""
        if self.delta is None:
            return block(x)
        self.mask = mask
        return self.delta.around(block, x)

    @property
    def every_token(self) -> bool:
        return self.delta is not None and self.delta.every_token


class TokenSite(Site):
    """Adds a method's tokens, (P, width) or (B, P, width), to a sequence, and ones to its mask.

    at: the place of the first of them; None: after all others.  image_width: where the sequence is a text's that images are
    compared with, the width of `image`, (1 or B, image_width): the embedding that each text's own tokens follow from.
    behind: the norm that the sequence comes from.  `prepare`: what the block does before it reads keys and values of it.
    reads: while a delta makes its tokens, the sequence and its mask, from which they may follow; else None."""

    what = "a sequence that tokens join"
    together = Joined

    def __init__(self, role: str, width: int, at: int | None = None, image_width: int | None = None):
        super().__init__(role, width)
        self.at, self.image_width = at, image_width
        self.image: Tensor | None = None
        self.reads: tuple[Tensor, Tensor | None] | None = None
        self.behind: Callable[[Tensor], Tensor] | None = None

    @property
    def follows_image(self) -> bool:
        """Whether its tokens differ from image to image."""
        return self.delta is not None and self.delta.follows_image

    def forward(
        self, tokens: Tensor, mask: Tensor | None, prepare: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """tokens: (B, N, width); mask: (B, N) or (B, N, N) bool, True = token, or None where nothing is masked."""
        if self.delta is None:
            return tokens, mask
        self.reads = tokens, mask
        tokens = append(tokens, self.acts(prepare) if prepare else self.acts(), self.at)
        self.reads = None
        return tokens, extend(mask, tokens.shape[1])


class KeyValueSite(Site):
    """Appends a method's keys and values, each (P, width), to those that an attention layer has projected, and ones to the
    mask.  They have no position and are never masked.  A delta gives them in `forward`, which takes nothing, or where they
    are each example's, in `beside`."""

    what = "an attention layer's keys and values"
    together = JoinedPairs

    def forward(self, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """keys and values: (B, M, width), before they are split into heads; mask: (B, M) bool, True = attend, or None."""
        if self.delta is None:
            return keys, values, mask
        extra = self._folded[0]() if self._folded else self.delta.beside(keys, values)
        keys, values = (append(*each) for each in zip((keys, values), extra, strict=True))
        return keys, values, extend(mask, keys.shape[1])


def append(tokens: Tensor, extra: Tensor, at: int | None = None) -> Tensor:
    """(B, N, width), (P, width) or (B, P, width) -> (B, N + P, width), the others at a place or after all."""
    extra = extra.expand(len(tokens), -1, -1).to(tokens.dtype)
    return torch.cat([tokens, extra] if at is None else [tokens[:, :at], extra, tokens[:, at:]], dim=1)


def extend(mask: Tensor | None, length: int) -> Tensor | None:
    """(B, N) -> (B, length), or (B, N, N) -> (B, N, length), with tokens after it that all attend to."""
    return None if mask is None else F.pad(mask, (0, length - mask.shape[-1]), value=True)


def sites(module: nn.Module) -> Iterator[Site]:
    return (m for m in module.modules() if isinstance(m, Site))


def place(module: nn.Module, where: str) -> None:
    """Says of every site of a part that it lies in `where`."""
    for site in sites(module):
        site.place = where


def lay(module: nn.Module, layout: PatchLayout | None) -> None:
    """Says of every site of a part how the patches lie in the sequence that it sees."""
    for site in sites(module):
        site.layout = layout
