"""The MAM adapter: a stack of two, as conf/method configures it."""

import pytest
import torch
from costs.test_published import composed
from methods.oracles import LAYERS, TOKENS, WIDTH, additional_macs, assert_agree, off_its_start, states, tuned

from vltune.assemble.factory import build_method
from vltune.runs.identity import decisive


def mam():
    sizes = ["method.methods.prefix.prompts=5", "method.methods.parallel_adapter.bottleneck=6"]
    return build_method(composed("method=mam", *sizes)["method"])


def test_is_a_prefix_and_a_parallel_adapter_times_4():
    first, second = mam().methods
    assert (type(first).__name__, first.prompts) == ("Prefix", 5)
    assert (type(second).__name__, second.roles) == ("AdaptFormer", ["feed_forward_output"])
    assert (second.scale, second.dropout) == (4.0, 0.0)


def test_its_order_is_decisive():
    spec = composed("method=mam")["method"]
    assert [*spec["methods"]] == ["prefix", "parallel_adapter"]
    turned = spec | {"methods": dict(reversed(spec["methods"].items()))}
    assert decisive("method", spec) != decisive("method", turned)


def test_a_block_is_the_released_block():
    """jxhe/unify-parameter-efficient-tuning, with attn_mode prefix and ffn_option parallel: the prefix in attention, and
    beside the feed-forward 4 relu(x W + b) V + c."""
    model = tuned("vilt", mam()).eval()
    block = model.backbone.blocks[0]
    prefix, adapter = block.attention.at_keys_values.delta, block.feed_forward.at_output.delta
    for delta in (prefix, adapter):
        off_its_start(delta)
    (x,) = states((2, 5, WIDTH))
    results = [block(x, None)]
    model.tuning.detach()

    def released():
        attention, h = block.attention, block.norm1(x)
        k, v = (torch.cat([own.expand(2, -1, -1), layer(h)], 1) for own, layer in pairs(attention, prefix))
        q, k, v = (attention.split(part) for part in (attention.query(h), k, v))
        weights = (q @ k.transpose(-1, -2) / (WIDTH // 4) ** 0.5).softmax(-1)
        y = x + attention.out((weights @ v).transpose(1, 2).flatten(2))
        h = block.norm2(y)
        beside = (h @ adapter.down.weight.t() + adapter.down.bias).relu() @ adapter.up.weight.t() + adapter.up.bias
        return y + block.feed_forward(h) + 4 * beside

    assert_agree(lambda: results[0], released, x, *prefix.parameters(), *adapter.parameters())


def pairs(attention, prefix):
    return [(prefix.keys, attention.key), (prefix.values, attention.value)]


@pytest.mark.parametrize(("backbone", "attentions"), [("vilt", 1), ("meter", 2)])
def test_costs_are_the_closed_form(backbone, attentions):
    expected = LAYERS * TOKENS * (attentions * 2 * 5 * WIDTH + 2 * 6 * WIDTH)
    assert additional_macs(backbone, mam()) == expected
