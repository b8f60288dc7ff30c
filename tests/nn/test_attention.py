"""Keys and values that a method appends to an attention layer's own."""

import pytest
import tiny
import torch
from torch import nn

from vltune.costs.macs import example, macs
from vltune.model import Model
from vltune.nn.attention import Attention
from vltune.sites import Delta, KeyValueSite
from vltune.tasks.vqa import VQA
from vltune.tuning import Method, Stack

B, N, M, P, HEADS = 2, 4, 5, 3, 4
W = tiny.WIDTH


class Prefix(Delta):
    def __init__(self, size):
        super().__init__()
        self.keys, self.values = (nn.Parameter(torch.randn(size, W)) for _ in range(2))

    def forward(self):
        return self.keys, self.values


class Halved(Prefix):
    """What it trains is twice what it appends; folded, it computes that once."""

    def forward(self):
        return self.keys / 2, self.values / 2

    def folded(self):
        keys, values = self()
        return lambda: (keys, values)


class AtKeys(Method):
    kinds = (KeyValueSite,)

    def __init__(self, *roles, size=P, kind=Prefix):
        self.roles, self.size_here, self.kind = roles, size, kind

    def delta(self, site):
        return self.kind(self.size_here)


def written_out(attention, x, memory, mask, keys, values):
    """softmax(q [K; P_k]^T / sqrt(d)) [V; P_v], head by head."""
    q = attention.query(x)
    k = torch.cat([attention.key(memory), keys.expand(B, -1, -1)], 1)
    v = torch.cat([attention.value(memory), values.expand(B, -1, -1)], 1)
    size, heads = W // HEADS, []
    for part in (slice(i * size, (i + 1) * size) for i in range(HEADS)):
        scores = q[..., part] @ k[..., part].transpose(1, 2) / size**0.5
        if mask is not None:
            scores[:, :, : mask.shape[1]].masked_fill_(~mask[:, None], -torch.inf)
        heads.append(scores.softmax(-1) @ v[..., part])
    return attention.out(torch.cat(heads, -1))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", [Prefix, Halved])
def test_appended_keys_and_values_are_the_equation(masked, kind):
    torch.manual_seed(0)
    attention, x, memory = Attention(W, HEADS), torch.randn(B, N, W), torch.randn(B, M, W)
    mask = torch.tensor([[True] * M, [True, True, False, False, False]]) if masked else None
    tuning = AtKeys("keys_values", kind=kind).attach(attention)
    delta = attention.at_keys_values.delta
    with torch.no_grad():
        expected = written_out(attention, x, memory, mask, *delta())
        torch.testing.assert_close(attention(x, memory, mask), expected, atol=1e-6, rtol=1e-5)
        with tuning.folded():
            torch.testing.assert_close(attention(x, memory, mask), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("fold", [False, True])
def test_two_methods_append_all_of_theirs(fold):
    attention, x = Attention(W, HEADS), torch.randn(B, N, W)
    tuning = Stack([AtKeys("keys_values"), AtKeys("keys_values", size=2, kind=Halved)]).attach(attention)
    first, second = attention.at_keys_values.delta.deltas
    keys, values = (torch.cat(each) for each in zip(first(), second(), strict=True))
    assert keys.shape == (P + 2, W)
    if fold:
        with tuning.folded():
            ours = attention(x, x, None)
    else:
        ours = attention(x, x, None)
    torch.testing.assert_close(ours, written_out(attention, x, x, None, keys, values), atol=1e-6, rtol=1e-5)


def test_they_are_of_the_keys_kind_under_autocast():
    attention, x = Attention(W, HEADS), torch.randn(B, N, W)
    AtKeys("keys_values").attach(attention)
    seen = []
    attention.at_keys_values.register_forward_hook(lambda site, inputs, output: seen.extend(output[:2]))
    with torch.autocast("cpu", torch.bfloat16):
        attention(x, x, None)
    assert {tensor.dtype for tensor in seen} == {torch.bfloat16}


TEXT, PATCHES = 12, 1 + 16


@pytest.mark.parametrize(
    ("make", "roles", "expected"),
    [
        (tiny.vilt, ["keys_values"], 2 * 2 * (TEXT + PATCHES) * P * W),
        (tiny.meter, ["keys_values"], 2 * 2 * (TEXT + PATCHES) * P * W),
        (tiny.meter, ["cross_keys_values"], 2 * 2 * (TEXT + PATCHES) * P * W),
        (tiny.meter, ["keys_values", "cross_keys_values"], 2 * 2 * 2 * (TEXT + PATCHES) * P * W),
    ],
)
def test_they_cost_each_query_a_score_and_a_sum(make, roles, expected):
    """Layers x (keys and values) x queries x P x width; nothing is projected."""
    backbone = make()
    model = Model(backbone, VQA(backbone.pooled_width, W, tiny.ANSWERS), AtKeys(*roles))
    assert macs(model, example(TEXT, (64, 64), tiny.VOCABULARY))["additional_macs"] == expected


@torch.no_grad()
def test_weights_are_dropped_out_in_training_alone():
    """Of one token each weight is 1, and here a head gives the weight that it has for it."""
    layer = Attention(4, 2, dropout=0.5)
    nn.init.zeros_(layer.value.weight)
    nn.init.ones_(layer.value.bias)
    nn.init.eye_(layer.out.weight)
    nn.init.zeros_(layer.out.bias)
    x, memory = torch.randn(1, 400, 4), torch.randn(1, 1, 4)
    torch.testing.assert_close(layer.eval()(x, memory, None), torch.ones(1, 400, 4))
    found = layer.train()(x, memory, None)
    assert found.unique().tolist() == pytest.approx([0.0, 2.0])
    assert found.mean().item() == pytest.approx(1.0, abs=0.2)
