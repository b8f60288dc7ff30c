"""RepAdapter against its released forward pass."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from methods.oracles import WIDTH, additional_macs, assert_agree, off_its_start, states, tuned
from torch import nn

from vltune.errors import UserError
from vltune.methods.rep_adapter import LinearBottleneck, RepAdapter
from vltune.sites import sites


def released(adapter, x, groups, scale):
    """luogen1996/RepAdapter, repadapter.py: two convolutions of kernel 1 over tokens, the second one grouped."""
    hidden = F.conv1d(x.transpose(1, 2), adapter.down.weight[..., None], adapter.down.bias)
    added = F.conv1d(hidden, adapter.up.flatten(0, 1)[..., None], adapter.bias, groups=groups)
    return (added * scale + x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_is_the_released_forward(groups):
    site = next(site for site in sites(tiny.vilt()) if site.role == "query")
    (delta,) = RepAdapter(units=3, groups=groups, scale=0.5).deltas([site])
    adapter = off_its_start(delta).adapter
    (x,) = states((2, 5, WIDTH))
    assert_agree(
        lambda: delta.around(site.part, x),
        lambda: site.part(released(adapter, x, groups, 0.5)),
        *(x, *adapter.parameters()),
    )


def test_a_block_is_the_released_block():
    """forward_vit_block_adapter: one adapter before attention, one before the feed-forward, each after its norm."""
    model = tuned("vilt", RepAdapter(units=2))
    model.tuning.detach()
    tuning = RepAdapter(units=2).attach(model.backbone)
    for site in tuning.sites:
        off_its_start(site.delta, 0.1)
    block, (x,) = model.backbone.blocks[0], states((2, 5, WIDTH))
    first, second = block.attention.at_query.delta.adapter, block.feed_forward.at_up.delta.adapter
    assert block.attention.at_key.delta.adapter is block.attention.at_value.delta.adapter is first
    ours = block(x, None)
    tuning.detach()
    h = released(first, block.norm1(x), 2, 1.0)
    y = x + block.attention(h, h, None)
    expected = y + block.feed_forward(released(second, block.norm2(y), 2, 1.0))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_starts_as_released():
    (delta,) = RepAdapter(units=8).deltas([next(site for site in sites(tiny.vilt()) if site.role == "query")])
    adapter = delta.adapter
    assert not any(start.any() for start in (adapter.down.bias, adapter.up, adapter.bias))
    assert adapter.down.weight.abs().max().item() == pytest.approx((6 / (WIDTH + 16)) ** 0.5, rel=0.02)
    assert (adapter.scale, adapter.dropout.p) == (1.0, 0.1)


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_costs_nothing_in_inference(backbone):
    assert additional_macs(backbone, RepAdapter(units=2)) == 0


def test_every_attention_layer_and_every_feed_forward_has_its_own():
    """METER: two attention layers and a feed-forward in each block of each stream."""
    made = RepAdapter(units=2).attach(tiny.meter())
    assert len({id(site.delta.adapter) for site in made.sites}) == 2 * 2 * 3
    assert len(made.sites) == 2 * 2 * 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": 0}, "method.units=0: must be a whole number at least 1"),
        ({"groups": 3}, "method.groups=3: must divide the width 32"),
        ({"groups": 0}, "method.groups=0: must be a whole number between 1 and the width 32"),
        ({"roles": ["norm"]}, "RepAdapter cannot act at norm, which is no linear layer"),
    ],
)
def test_wrong_settings_are_told_in_one_line(settings, message):
    with pytest.raises(UserError) as error:
        RepAdapter(**settings).attach(tiny.vilt())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_dropout_is_of_the_units():
    """Of a single one, which every output reads: all are dropped together or none."""
    torch.manual_seed(0)
    adapter = LinearBottleneck(6, units=1, groups=1, scale=1.0, dropout=0.5).train()
    nn.init.ones_(adapter.up)
    x = torch.randn(1, 50, 6)
    unit = adapter.down(x)
    added = adapter(x) - x
    dropped = added.abs().amax(-1, keepdim=True) < 1e-6
    assert 10 < dropped.sum() < 40
    torch.testing.assert_close(added, torch.where(dropped, 0.0, 2 * unit).expand_as(added), atol=1e-5, rtol=1e-5)
