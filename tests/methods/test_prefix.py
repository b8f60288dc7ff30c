"""Prefix tuning against its released attention."""

import math

import pytest
import tiny
import torch
from methods.oracles import LAYERS, TOKENS, WIDTH, additional_macs, assert_agree, off_its_start, states

from vltune.errors import UserError
from vltune.methods.prefix import Prefix
from vltune.nn.attention import Attention


def test_is_the_released_forward():
    """XiangLiLisa/PrefixTuning: past keys and values of each head stand before a layer's own, and are never masked."""
    torch.manual_seed(0)
    attention, heads = Attention(WIDTH, heads=4), 4
    delta = off_its_start(Prefix(prompts=3).delta(attention.at_keys_values))
    attention.at_keys_values.put(delta)
    (x,) = states((2, 5, WIDTH))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])

    def split(y):
        return y.view(len(y), -1, heads, WIDTH // heads).transpose(1, 2)

    def released():
        q, k, v = (split(layer(x)) for layer in (attention.query, attention.key, attention.value))
        past = (split(part.expand(2, -1, -1)) for part in (delta.keys, delta.values))
        k, v = (torch.cat(pair, dim=2) for pair in zip(past, (k, v), strict=True))
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // heads)
        seen = torch.cat([torch.ones(2, 3, dtype=torch.bool), mask], dim=1)
        weights = scores.masked_fill(~seen[:, None, None], -math.inf).softmax(-1)
        return attention.out((weights @ v).transpose(1, 2).flatten(2))

    assert_agree(lambda: attention(x, x, mask), released, x, delta.keys, delta.values)


def test_starts_small():
    delta = Prefix(prompts=40, init_std=0.5).delta(Attention(WIDTH, heads=4).at_keys_values)
    assert [part.std().item() for part in (delta.keys, delta.values)] == pytest.approx([0.5, 0.5], rel=0.1)


@pytest.mark.parametrize(("backbone", "attentions"), [("vilt", 1), ("meter", 2)])
def test_costs_are_the_closed_form(backbone, attentions):
    assert additional_macs(backbone, Prefix(prompts=5)) == attentions * LAYERS * 2 * TOKENS * 5 * WIDTH


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": 0}, "method.prompts=0: must be a whole number at least 1"),
        (
            {"roles": ["memory"]},
            "Prefix cannot act at memory, which is a sequence that tokens join; it can at keys_values",
        ),
    ],
)
def test_wrong_settings_are_told_in_one_line(settings, message):
    with pytest.raises(UserError) as error:
        Prefix(**settings).attach(tiny.vilt())
    assert message in str(error.value)
