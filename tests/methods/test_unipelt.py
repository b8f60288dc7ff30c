"""UniPELT: a stack of three behind gates, as conf/method configures it."""

import pytest
import tiny
import torch
from costs.test_published import composed
from methods.oracles import LAYERS, TOKENS, WIDTH, additional_macs, assert_agree, off_its_start, states, tuned
from torch import nn

from vltune.assemble.factory import build_method
from vltune.errors import UserError
from vltune.methods.adapter import Adapter
from vltune.methods.bitfit import BitFit
from vltune.methods.dora import DoRA
from vltune.methods.lora import LoRA
from vltune.methods.lst import LST
from vltune.methods.peft import Peft
from vltune.methods.prefix import Prefix
from vltune.methods.rep_adapter import RepAdapter
from vltune.methods.ssf import SSF
from vltune.methods.unipelt import Gate, UniPELT
from vltune.sites import Delta, Linear, PartSite
from vltune.tuning import Method, Stack

SIZES = ("prefix.prompts=5", "lora.rank=2", "lora.dropout=0.0", "adapter.bottleneck=6")


def unipelt():
    return build_method(composed("method=unipelt", *(f"method.methods.{size}" for size in SIZES))["method"])


def test_is_a_prefix_a_lora_and_an_adapter_after_the_feed_forward():
    made = unipelt()
    assert [type(each) for each in made.methods] == [Prefix, LoRA, Adapter]
    assert made.methods[2].roles == ["feed_forward_output"]


@pytest.mark.parametrize("tokens", [1, 5])
def test_a_block_is_the_released_block(tokens):
    """morningmoni/UniPELT: modeling_bert.py, lora_layers.py and adapters/modeling.py, in a block of ours.  On one token the
    mean of the gates is that of the first; a prefix's gate reads keys."""
    model = tuned("vilt", unipelt()).eval()
    block = model.backbone.blocks[0]
    attention = block.attention
    at = {"query": attention.at_query, "value": attention.at_value, "prefix": attention.at_keys_values}
    at |= {"adapter": block.feed_forward.at_output}
    delta = {name: off_its_start(site.delta) for name, site in at.items()}
    (x,) = states((2, tokens, WIDTH))
    results = [block(x, None)]
    model.tuning.detach()

    def gate(name, read):
        layer = delta[name].gate
        return torch.sigmoid(read[:, 0] @ layer.weight[0] + layer.bias)[:, None, None]

    def lora(name, layer, h):
        inner = delta[name].delta
        return layer(h) + (h @ inner.down.weight.t() @ inner.up.weight.t()) * gate(name, h)

    def released():
        h, own = block.norm1(x), delta["prefix"].delta
        q, k, v = lora("query", attention.query, h), attention.key(h), lora("value", attention.value, h)
        share = gate("prefix", k)
        k, v = (torch.cat([share * more, part], 1) for more, part in ((own.keys, k), (own.values, v)))
        q, k, v = (attention.split(part) for part in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / (WIDTH // 4) ** 0.5).softmax(-1)
        y = x + attention.out((weights @ v).transpose(1, 2).flatten(2))
        z, inner = block.feed_forward(block.norm2(y)), delta["adapter"].delta
        up = inner.up((z @ inner.down.weight.t() + inner.down.bias).relu())
        return y + z + up * gate("adapter", z)

    parameters = [parameter for each in delta.values() for parameter in each.parameters()]
    assert_agree(lambda: results[0], released, x, *parameters)


def test_gates_start_half_open():
    for site in unipelt().attach(tiny.vilt()).sites:
        assert not site.delta.gate.bias.any()
        assert site.delta.gate.weight.std().item() == pytest.approx(0.02, rel=0.5)


def test_each_method_trains_its_own_and_each_site_a_gate():
    tuning = unipelt().attach(tiny.vilt())
    own = sum(parameter.numel() for method in unipelt().methods for parameter in method.attach(tiny.vilt()).trained)
    gates = sum(site.in_width + 1 for site in tuning.sites)
    assert sum(parameter.numel() for parameter in tuning.trained) == own + gates


@pytest.mark.parametrize(("backbone", "streams", "attentions"), [("vilt", 1, 1), ("meter", 2, 2)])
def test_costs_are_the_closed_form(backbone, streams, attentions):
    """LoRA behind a gate does not fold.  A gate reads one token, of each stream."""
    layer = attentions * (2 * 5 * WIDTH + 2 * 2 * WIDTH * 2) + 2 * 6 * WIDTH
    gates = streams * (attentions * 3 + 1) * WIDTH
    assert additional_macs(backbone, unipelt()) == LAYERS * (TOKENS * layer + gates)


class OfTheWeight(Delta):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def around(self, part, x):
        return Linear(self.scale * part.weight, part.bias)(x)


class Rescaled(Method):
    kinds, roles = (PartSite,), ("query",)

    def delta(self, site):
        return OfTheWeight()


def test_what_is_rescaled_behind_a_gate_is_counted():
    assert additional_macs("vilt", UniPELT([Prefix(prompts=2), SSF()])) > 0


def test_a_gate_is_one_number_of_each_example_also_of_an_image():
    layer = nn.Linear(4, 4)
    gate = Gate(SSF().delta(PartSite("query", layer)), PartSite("query", layer))
    image = torch.randn(2, 3, 3, 4)
    torch.testing.assert_close(gate.open(image).flatten(), gate.open(image.flatten(1, 2)).flatten())
    assert gate.open(image).shape == (2, 1, 1, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LST(), "LST acts at block, which is a whole block; it cannot be gated"),
        (lambda: Stack([LoRA(rank=2)]), "Stack acts at no site, and there is nothing to gate"),
        (lambda: RepAdapter(units=2), "one of them changes what a layer reads, or its weight; it cannot be gated"),
        (lambda: BitFit(roles=["query"]), "BitFit trains a layer's own parameters, and there is nothing to gate"),
        (lambda: Peft(options={"r": 2}), "one of them changes what a layer reads, or its weight; it cannot be gated"),
        (Rescaled, "one of them changes what a layer reads, or its weight; it cannot be gated"),
    ],
)
def test_what_cannot_be_gated_is_told_in_one_line(make, message):
    with pytest.raises(UserError) as error:
        tuned("vilt", UniPELT([Prefix(prompts=2), make()]))(tiny.batch())
    assert str(error.value) == f"method.methods: {message}"


@pytest.mark.parametrize("make", [lambda: Peft(options={"r": 2}, roles=["query"]), lambda: DoRA(roles=["query"])])
def test_what_needs_the_layer_itself_is_refused_behind_another_as_in_any_stack(make):
    for stack in (Stack, UniPELT):
        with pytest.raises(UserError, match=r"first"):
            stack([LoRA(rank=2), make()]).attach(tiny.vilt())
