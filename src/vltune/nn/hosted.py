"""Sites in modules that are not ours (timm's, say), whose own names and code stay as they are."""

from __future__ import annotations

import copy
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.sites import BlockSite, OutputSite, PartSite


class Share:
    """Some `rows` of a linear layer's outputs, as a layer."""

    def __init__(self, layer: nn.Linear, rows: slice):
        self.layer, self.rows = layer, rows

    @property
    def weight(self) -> Tensor:
        return self.layer.weight[self.rows]

    @property
    def bias(self) -> Tensor | None:
        return None if self.layer.bias is None else self.layer.bias[self.rows]

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def inside(layer: nn.Module) -> nn.Module:
    """What a layer computes without its sites: one of its kind that holds the same parameters, also after these are moved,
    replaced or copied, and nothing else of it."""
    plain = copy.copy(layer)  # the dictionary of parameters is the layer's own
    for name, value in vars(layer).items():
        if isinstance(value, dict) and name != "_parameters":
            setattr(plain, name, type(value)())
    return plain


def expose_part(layer: nn.Linear | nn.LayerNorm, *roles: str) -> None:
    """Has a layer called through part sites; with several roles its outputs are theirs, in equal shares."""
    plain, size = inside(layer), len(layer.weight) // len(roles)
    for number, role in enumerate(roles):
        part = plain if len(roles) == 1 else Share(plain, slice(number * size, (number + 1) * size))
        setattr(layer, f"at_{role}", PartSite(role, part))
    layer.exposed = roles
    layer.__class__ = _called_through_sites(type(layer))


@cache
def _called_through_sites(kind: type[nn.Module]) -> type[nn.Module]:
    plain = kind.forward

    def forward(layer: nn.Module, x: Tensor) -> Tensor:
        sites = [getattr(layer, f"at_{role}") for role in layer.exposed]
        if all(site.delta is None for site in sites):
            return plain(layer, x)
        return torch.cat([site(x) for site in sites], dim=-1) if len(sites) > 1 else sites[0](x)

    return type(kind.__name__, (kind,), {"forward": forward})


def expose_block(block: nn.Module, width: int, causal: bool = False) -> None:
    """Has a block, a function of its first argument, called through a site.  causal: a token sees those before it alone."""
    block.at_block, block.causal = BlockSite("block", width), causal
    block.__class__ = _a_block_at_its_site(type(block))


@cache
def _a_block_at_its_site(kind: type[nn.Module]) -> type[nn.Module]:
    plain = kind.forward

    def forward(block: nn.Module, x: Tensor, *more, **options) -> Tensor:
        mask = None
        if block.causal and block.at_block.delta is not None:
            mask = torch.ones(1, x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        return block.at_block(x, lambda x: plain(block, x, *more, **options), mask)

    return type(kind.__name__, (kind,), {"forward": forward})


def expose_output(sublayer: nn.Module, role: str, width: int) -> None:
    """Puts a site at a sublayer's output, the first of several, after those that are there already."""
    name = f"at_{role}"
    setattr(sublayer, name, OutputSite(role, width))
    sublayer.register_forward_hook(partial(_pass_site, name), with_kwargs=True)


def _pass_site(name: str, sublayer: nn.Module, inputs: tuple, options: dict, output: Tensor | tuple) -> Tensor | tuple:
    """The hook is given its own module, so that a copy of a backbone passes the copy's site."""
    x = inputs[0] if inputs else next(iter(options.values()))
    site = getattr(sublayer, name)
    return (site(output[0], x), *output[1:]) if isinstance(output, tuple) else site(output, x)
