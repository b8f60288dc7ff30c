"""AdaptFormer against its released forward pass."""

import pytest
import tiny
from methods.oracles import LAYERS, TOKENS, WIDTH, additional_macs, assert_agree, off_its_start, states

from vltune.errors import UserError
from vltune.methods.adaptformer import AdaptFormer
from vltune.sites import sites

SITE = next(site for site in sites(tiny.vilt()) if site.role == "feed_forward_output")


def test_is_the_released_forward():
    """ShoufaChen/AdaptFormer, models/adapter.py, without its layer norm and its residual, of a parallel block."""
    delta = off_its_start(AdaptFormer(bottleneck=6, scale=0.7).delta(SITE))
    y, x = states((2, 5, WIDTH), (2, 5, WIDTH))
    w1, b1, w2, b2 = (parameter for layer in (delta.down, delta.up) for parameter in (layer.weight, layer.bias))

    def released():
        hidden = (x @ w1.t() + b1).clamp(min=0)
        return (hidden @ w2.t() + b2) * 0.7 + y

    assert_agree(lambda: delta(y, x), released, y, x, w1, b1, w2, b2)


def test_starts_as_released():
    delta = AdaptFormer(bottleneck=64).delta(SITE)
    assert not any(start.any() for start in (delta.down.bias, delta.up.weight, delta.up.bias))
    assert delta.down.weight.abs().max().item() == pytest.approx(WIDTH**-0.5, rel=0.01)
    assert (delta.scale, delta.dropout.p) == (0.1, 0.1)


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_costs_are_the_closed_form(backbone):
    expected = LAYERS * TOKENS * 2 * WIDTH * 6
    assert additional_macs(backbone, AdaptFormer(bottleneck=6)) == expected


def test_a_bottleneck_of_none_is_told_in_one_line():
    with pytest.raises(UserError, match=r"^method\.bottleneck=0: must be a whole number at least 1$"):
        AdaptFormer(bottleneck=0).attach(tiny.vilt())
