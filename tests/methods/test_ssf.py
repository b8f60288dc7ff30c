"""SSF is the released forward of a block: a scale and a shift after every linear layer and norm.

dongzelian/SSF, models/vision_transformer.py, restated; its query, key and value are one layer, of which each has a third.
"""

import torch
import torch.nn.functional as F
from methods.peft_layers import check
from torch import nn

from vltune.methods.ssf import SSF
from vltune.nn.blocks import PreNormBlock
from vltune.sites import sites

WIDTH, HEADS = 16, 4


def block():
    """A block with SSF, away from its start."""
    torch.manual_seed(0)
    made = PreNormBlock(WIDTH, HEADS, 32, nn.GELU(), dropout=0.0, eps=1e-6)
    method = SSF()
    chosen = [site for site in sites(made) if site.role in method.roles]
    for site, delta in zip(chosen, method.deltas(chosen), strict=True):
        site.put(delta)
        nn.init.normal_(delta.scale)
        nn.init.normal_(delta.shift)
    assert len(chosen) == 8
    return made


def released(made):
    """The same block's forward as released, on the same tensors."""

    def tuned(y, *places):
        scale, shift = (torch.cat([getattr(site.delta, name) for site in places]) for name in ("scale", "shift"))
        return y * scale + shift

    def forward(x):
        attention, feed_forward = made.attention, made.feed_forward
        layers = attention.query, attention.key, attention.value
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
        h = F.linear(tuned(made.norm1(x), made.at_norm1), weight, bias)
        h = tuned(h, attention.at_query, attention.at_key, attention.at_value)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in h.chunk(3, dim=-1))
        weights = (q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5).softmax(dim=-1)
        x = x + tuned(attention.out((weights @ v).transpose(1, 2).flatten(2)), attention.at_projection)
        h = tuned(feed_forward.up(tuned(made.norm2(x), made.at_norm2)), feed_forward.at_up)
        return x + tuned(feed_forward.down(feed_forward.activation(h)), feed_forward.at_down)

    return forward


def test_a_block_is_the_released_one():
    made = block()
    trained = [parameter for site in sites(made) if site.delta for parameter in site.delta.parameters()]
    # The gradient of a key's shift is 0 but for rounding: it adds the same to all scores of a query.
    key = made.attention.at_key.delta.shift
    pairs = [(parameter, parameter) for parameter in trained if parameter is not key]
    check(lambda x: made(x, None), released(made), torch.randn(2, 5, WIDTH), pairs)


def test_it_folds_into_linear_layers_and_norms_alike():
    made, x = block(), torch.randn(2, 5, WIDTH)
    with torch.no_grad():
        plain = made(x, None)
        tuned = [site for site in sites(made) if site.delta]
        for site in tuned:
            site.fold()
        torch.testing.assert_close(made(x, None), plain, rtol=0, atol=1e-5 * plain.abs().max().item())
        assert {type(site.acts).__name__ for site in tuned} == {"Linear", "Norm"}


def test_it_starts_around_the_identity_as_released():
    torch.manual_seed(0)
    made = PreNormBlock(512, 4, 512, nn.GELU(), dropout=0.0, eps=1e-6)
    deltas = SSF().deltas([site for site in sites(made) if site.role == "query"])
    assert abs(deltas[0].scale.mean() - 1) < 0.005
    assert abs(deltas[0].shift.mean()) < 0.005
    assert all(0.018 < each.std() < 0.022 for each in (deltas[0].scale, deltas[0].shift))
