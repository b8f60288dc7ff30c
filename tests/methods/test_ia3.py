"""(IA)3 is PEFT's at its own three places."""

import torch
from methods.peft_layers import check, check_folded, equalise, wrapped
from torch import nn

from vltune.methods.ia3 import IA3
from vltune.sites import PartSite

# A layer's PEFT name and role, and whether its input is scaled.
PLACES = {"key": False, "value": False, "feed_forward_up": False, "feed_forward_down": True}


def test_it_is_pefts_on_equal_tensors():
    from peft import IA3Config

    torch.manual_seed(0)
    layers = {role: nn.Linear(24, 32) for role in PLACES}
    wrapped_layers = wrapped(IA3Config(feedforward_modules=["feed_forward_down"]), layers)
    for role, reads in PLACES.items():
        site, theirs = PartSite(role, layers[role]), wrapped_layers[role]
        (delta,) = IA3().deltas([site])
        site.put(delta)
        assert delta.scale.shape == ((24,) if reads else (32,))
        assert torch.equal(delta.scale, torch.ones_like(delta.scale))
        pairs = [(delta.scale, theirs.ia3_l["default"])]
        equalise(pairs)
        x = torch.randn(2, 5, 24)
        check(site, theirs, x, pairs)
        check_folded(site, x)


def test_the_feed_forward_is_scaled_between_its_layers():
    """(scale * relu(W1 x)) W2, which no scale of the sublayer's output is."""
    from vltune.nn.feed_forward import FeedForward

    torch.manual_seed(0)
    layer = FeedForward(8, 16, nn.ReLU())
    (delta,) = IA3().deltas([layer.at_down])
    layer.at_down.put(delta)
    nn.init.normal_(delta.scale)
    x = torch.randn(2, 3, 8)
    expected = layer.down(delta.scale * torch.relu(layer.up(x)))
    torch.testing.assert_close(layer(x), expected)
