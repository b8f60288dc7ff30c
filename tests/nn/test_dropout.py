"""Dropout: what it keeps, what it multiplies, and that a seed decides it."""

import pytest
import torch
from torch import nn

from vltune.nn.attention import Attention
from vltune.nn.blocks import FusionBlock, PostNormBlock, PreNormBlock
from vltune.nn.dropout import Dropout, dropout, quicken


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_is_p_and_the_mean_stays(p, dtype):
    torch.manual_seed(0)
    x = torch.full((1000, 1001), 3.0, dtype=dtype)
    y = dropout(x, p).float()
    kept = y != 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.002)
    assert y[kept].unique().tolist() == pytest.approx([3 / (1 - p)], rel=1e-4 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize("p", [1e-6, 1 - 1e-6])
def test_neither_nothing_nor_everything_is_dropped(p):
    torch.manual_seed(0)
    kept = dropout(torch.ones(2000, 2000), p).ne(0).float().mean().item()
    assert 0 < min(kept, 1 - kept) < 1e-4


def test_gradients_go_where_values_do():
    x = torch.randn(20, 30, requires_grad=True)
    y = dropout(x, 0.3)
    y.sum().backward()
    assert torch.allclose(x.grad * x.detach(), y.detach())


def test_elements_are_dropped_alone():
    """Neither rows nor columns nor neighbours go together."""
    torch.manual_seed(0)
    kept = dropout(torch.ones(4000, 64), 0.5).ne(0).float()
    apart = torch.corrcoef(kept.t()) - torch.eye(64)
    assert apart.abs().max() < 0.08


def test_a_seed_decides_it():
    x = torch.ones(50, 50)
    torch.manual_seed(3)
    state, first, second = torch.get_rng_state(), dropout(x, 0.5), dropout(x, 0.5)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.5), first)


def test_sites_of_one_input_share_a_mask():
    query, value, other = Dropout(0.5), Dropout(0.5), Dropout(0.4)
    x, y = torch.ones(40, 40), torch.ones(40, 40)
    first = query(x)
    assert torch.equal(value(x), first)
    assert not torch.equal(other(x), first)
    assert not torch.equal(value(y), first)
    assert not torch.equal(query(x), first), "after another input it is drawn anew"


def test_without_training_or_chance_it_is_torchs():
    x = torch.randn(5, 5)
    assert Dropout(0.5).eval()(x) is x
    assert torch.equal(dropout(x, 0.0), x)
    assert torch.equal(dropout(x, 1.0), torch.zeros(5, 5))


def test_a_librarys_dropout_becomes_one():
    module = nn.TransformerEncoderLayer(8, 2)
    names = list(module.state_dict())
    quicken(module)
    assert isinstance(module.dropout1, Dropout)
    assert list(module.state_dict()) == names


def test_another_share_is_drawn_for_itself():
    x = torch.ones(200, 200)
    half, tenth = Dropout(0.5)(x), Dropout(0.1)(x)
    assert half.ne(0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert tenth.ne(0).float().mean().item() == pytest.approx(0.9, abs=0.02)


def blocks():
    """{kind: a block that drops out all that it may, but for attention's weights, and the norms behind its sublayers}"""
    torch.manual_seed(0)
    pre, post, fusion = (
        kind(8, 2, 16, nn.GELU(), dropout=1.0, eps=1e-5) for kind in (PreNormBlock, PostNormBlock, FusionBlock)
    )
    for block in (pre, post, fusion):
        for module in block.modules():
            if isinstance(module, Attention):
                module.dropout = 0.0
    parts = {"post": [post.self_attention, post.feed_forward]}
    parts["fusion"] = [fusion.self_attention, fusion.cross_attention, fusion.feed_forward]
    norms = {"pre": []} | {kind: [part.norm for part in of] for kind, of in parts.items()}
    return {kind: (block, norms[kind]) for kind, block in (("pre", pre), ("post", post), ("fusion", fusion))}


@pytest.mark.parametrize("kind", ["pre", "post", "fusion"])
def test_every_sublayers_output_is_dropped_out_before_it_is_added(kind):
    block, norms = blocks()[kind]
    x, other = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    given = (x, None, other, None) if kind == "fusion" else (x, None)
    expected = x
    for norm in norms:
        expected = norm(expected)
    torch.testing.assert_close(block.train()(*given), expected)
    assert not torch.allclose(block.eval()(*given), expected, atol=1e-3)


def test_hidden_units_are_dropped_out_in_pre_norm_blocks_alone():
    found = {kind: block.feed_forward for kind, (block, _) in blocks().items()}
    assert found["pre"].dropout.p == 1.0
    assert found["post"].feed_forward.dropout.p == found["fusion"].feed_forward.dropout.p == 0.0
    layer, x = found["pre"].train(), torch.randn(2, 3, 8)
    torch.testing.assert_close(layer(x), layer.down.bias.expand(2, 3, 8))
