"""Compacter against its released forward pass."""

import math

import pytest
import tiny
import torch
from methods.oracles import LAYERS, TOKENS, WIDTH, additional_macs, assert_agree, off_its_start, states

from vltune.errors import UserError
from vltune.methods.compacter import Compacter
from vltune.sites import sites

SITES = [site for site in sites(tiny.vilt()) if site.role in ("attention_output", "feed_forward_output")]


def map_of(layer, x):
    """x W + b with W a sum of Kronecker products: hypercomplex/layers.py of rabeehk/compacter."""
    factors = zip(layer.rule, layer.left, layer.right, strict=True)
    return x @ sum(torch.kron(a, left @ right) for a, left, right in factors) + layer.bias


@pytest.mark.parametrize("rank", [1, 2])
def test_is_the_released_forward(rank):
    """adapters/adapter_modeling.py and its controller: a bottleneck with tanh-GELU, added to the sublayer's output."""
    delta = off_its_start(Compacter(units=2, n=4, rank=rank).deltas(SITES)[0])
    y, x = states((2, 5, WIDTH), (2, 5, WIDTH))

    def released():
        z = map_of(delta.down, y)
        z = 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
        return y + map_of(delta.up, z)

    assert_agree(lambda: delta(y, x), released, y, *delta.parameters())
    with torch.no_grad():
        torch.testing.assert_close(delta.folded()(y, x), released(), atol=1e-5, rtol=1e-5)


def test_all_maps_of_all_sites_have_one_rule():
    tuning = Compacter(units=2).attach(tiny.meter())
    assert len({id(layer.rule) for site in tuning.sites for layer in (site.delta.down, site.delta.up)}) == 1
    own = 2 * (WIDTH + 8) + 8 + WIDTH
    assert sum(parameter.numel() for parameter in tuning.trained) == 4**3 + len(tuning.sites) * own


def test_starts_as_released():
    delta, *_ = Compacter(units=2, n=8, rule_std=0.5).deltas(SITES)
    assert delta.down.rule.std().item() == pytest.approx(0.5, rel=0.1)
    assert not delta.down.bias.any()
    assert not delta.up.bias.any()
    assert delta.up.right.abs().max().item() == pytest.approx(math.sqrt(2 * 6 / (1 + WIDTH / 8)), rel=0.1)
    assert Compacter().rule_std == 1e-4


@pytest.mark.parametrize(("backbone", "sublayers"), [("vilt", 2), ("meter", 3)])
def test_costs_are_those_of_an_adapter_in_inference(backbone, sublayers):
    expected = sublayers * LAYERS * TOKENS * 2 * WIDTH * 8
    assert additional_macs(backbone, Compacter(units=2, n=4)) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": 0}, "method.units=0: must be a whole number at least 1"),
        ({"rank": 0}, "method.rank=0: must be a whole number at least 1"),
        ({"n": 5}, "method.n=5: must divide the width 32"),
    ],
)
def test_wrong_settings_are_told_in_one_line(settings, message):
    with pytest.raises(UserError) as error:
        Compacter(**settings).attach(tiny.vilt())
    assert message in str(error.value)
