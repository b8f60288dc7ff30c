"""LoKr is PEFT's, with and without its low-rank factor."""

import pytest
import tiny
import torch
from methods.peft_layers import check, check_folded, equalise, wrapped
from torch import nn

from vltune.errors import UserError
from vltune.methods.lokr import LoKr
from vltune.sites import PartSite


def start(delta):
    """Whether the authors' start holds: the change is 0, and what it is multiplied by is not."""
    return not delta.inner[0].weight.any() and delta.outer.any() and all(each.weight.any() for each in delta.inner[1:])


@pytest.mark.parametrize("rank", [2, None])
def test_it_is_pefts_on_equal_tensors(rank):
    from peft import LoKrConfig

    torch.manual_seed(0)
    layer, size = nn.Linear(24, 32), rank or 64  # a rank that is as large as the factor makes PEFT's full
    config = LoKrConfig(r=size, alpha=size, decompose_factor=4, init_weights="lycoris")
    theirs = wrapped(config, {"query": layer})["query"]
    site = PartSite("query", layer)
    (delta,) = LoKr(factor=4, rank=rank).deltas([site])
    site.put(delta)
    assert start(delta)
    pairs = [(delta.outer, theirs.lokr_w1["default"])]
    if rank is None:
        pairs.append((delta.inner[0].weight, theirs.lokr_w2["default"]))
    else:
        down, up = delta.inner
        pairs += [(up.weight, theirs.lokr_w2_a["default"]), (down.weight, theirs.lokr_w2_b["default"])]
    equalise(pairs)
    x = torch.randn(2, 5, 24)
    check(site, theirs, x, pairs)
    check_folded(site, x)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (LoKr(factor=5), "method.factor=5: must divide 32, a width of query"),
        (LoKr(factor=0), "method.factor=0: must be a whole number between 1 and the width 32"),
        (LoKr(factor=64), "method.factor=64: must be a whole number between 1 and the width 32"),
        (LoKr(factor=8, rank=5), "method.rank=5: must be a whole number between 1 and the width 4"),
        (LoKr(factor=8, rank=0), "method.rank=0: must be a whole number between 1 and the width 4"),
    ],
)
def test_sizes_that_do_not_fit_are_told_in_one_line(method, message):
    with pytest.raises(UserError) as error:
        method.attach(tiny.vilt())
    assert str(error.value) == message
