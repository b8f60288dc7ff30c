"""Sites in diffusers' attention, whose own names, code and processors stay as they are."""

from __future__ import annotations

from functools import cache

import torch.nn.functional as F
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.nn.hosted import expose_part
from vltune.sites import KeyValueSite, OutputSite, TokenSite, sites

PARTS = {"to_q": "query", "to_k": "key", "to_v": "value"}
BYPASS = "would bypass the sites of its layers, and a method there would do nothing"


def expose_attention(attention: nn.Module, norm: nn.Module | None) -> None:
    """The sites of an `Attention` inside a transformer block, with any of its processors that calls its four layers.

    norm: what a sequence passes before its keys and values are read; None in cross-attention, whose memory is another
    stream's.  UserError where its output is more than a sublayer's (a residual, another scale), or its text is normed."""
    if attention.residual_connection or attention.rescale_output_factor != 1 or attention.norm_cross:
        raise UserError(
            f"{type(attention).__name__}: has its own residual, scale or norm of the text; use another UNet"
        )
    cross, (width, in_width) = norm is None, attention.to_out[0].weight.shape
    for name, role in PARTS.items():
        expose_part(getattr(attention, name), role)
    for layer in (attention.to_k, attention.to_v):
        layer.known, layer.__class__ = None, _known_at_times(type(layer))
    expose_part(attention.to_out[0], "projection")
    before = "cross_" if cross else ""
    attention.at_memory = TokenSite(f"{before}memory", attention.to_k.in_features)
    attention.at_keys_values = KeyValueSite(f"{before}keys_values", in_width)
    attention.at_attention_output, attention.at_parallel_output = (
        OutputSite(role, width, attention.to_q.in_features) for role in ("attention_output", "parallel_output")
    )
    for site in sites(attention):
        site.cross = cross
    attention.before_memory = (norm,)  # in a tuple, so that it is neither registered nor saved a second time
    attention.more_keys, attention.watched = 0, None
    attention.__class__ = _attention_at_its_sites(type(attention))


@cache
def _known_at_times(kind: type[nn.Module]) -> type[nn.Module]:
    """A layer whose output may be known already, once."""
    plain = kind.forward

    def forward(layer: nn.Module, x: Tensor) -> Tensor:
        known, layer.known = layer.known, None
        return plain(layer, x) if known is None else known

    return type(kind.__name__, (kind,), {"forward": forward})


@cache
def _attention_at_its_sites(kind: type[nn.Module]) -> type[nn.Module]:
    plain = kind.forward

    def forward(
        attention: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options,
    ) -> Tensor:
        memory, mask = _with_tokens(attention, hidden_states, encoder_hidden_states, attention_mask)
        _know_keys_and_values(attention, hidden_states if memory is None else memory)
        with _Watch(attention):
            y = plain(attention, hidden_states, memory, mask, **options)
        y = attention.at_attention_output(y, hidden_states)
        return attention.at_parallel_output(y, hidden_states)

    def prepare_attention_mask(attention: nn.Module, *arguments, **options) -> Tensor | None:
        mask = kind.prepare_attention_mask(attention, *arguments, **options)
        return mask if mask is None or not attention.more_keys else F.pad(mask, (0, attention.more_keys))

    def fuse_projections(attention: nn.Module, fuse: bool = True) -> None:
        raise UserError(f"fuse_qkv_projections: {BYPASS}; leave the projections as they are")

    members = (forward, prepare_attention_mask, fuse_projections)
    return type(kind.__name__, (kind,), {member.__name__: member for member in members})


def _with_tokens(
    attention: nn.Module, x: Tensor, memory: Tensor | None, mask: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The memory, None where it is x itself, and the additive mask of it, (B, 1, M) or None, with a method's tokens."""
    if attention.at_memory.delta is None:
        return memory, mask
    own = x if memory is None else memory
    tokens, _ = attention.at_memory(own, None, *(norm for norm in attention.before_memory if norm is not None))
    return tokens, mask if mask is None else F.pad(mask, (0, tokens.shape[1] - own.shape[1]))


def _know_keys_and_values(attention: nn.Module, memory: Tensor) -> None:
    """Where a method has keys and values of its own: has the layers give them beside theirs."""
    attention.more_keys = 0
    if attention.at_keys_values.delta is None:
        return
    keys, values, _ = attention.at_keys_values(attention.to_k(memory), attention.to_v(memory), None)
    attention.to_k.known, attention.to_v.known = keys, values
    attention.more_keys = keys.shape[1] - memory.shape[1]


class _Watch:
    """Sees once for each processor of an attention that it calls all four layers.  UserError where it does not."""

    def __init__(self, attention: nn.Module):
        self.attention, self.called, self.hooks = attention, set(), []

    def __enter__(self) -> None:
        if self.attention.watched is not type(self.attention.processor):
            layers = {"to_out": self.attention.to_out[0]} | {name: getattr(self.attention, name) for name in PARTS}
            for name, layer in layers.items():
                self.hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: self.called.add(name)))

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()
        if self.hooks and error is None:
            processor = type(self.attention.processor)
            if passed := {*PARTS, "to_out"} - self.called:
                raise UserError(f"{processor.__name__}: {BYPASS} ({', '.join(sorted(passed))}); set another processor")
            self.attention.watched = processor
