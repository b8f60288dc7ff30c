"""DoRA is PEFT's, and stands before others at a layer or not at all."""

import pytest
import tiny
import torch
from methods.peft_layers import check, check_folded, equalise, wrapped
from torch import nn

from vltune.errors import UserError
from vltune.methods.dora import DoRA
from vltune.methods.lora import LoRA
from vltune.sites import PartSite
from vltune.tuning import Stack


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_pefts_on_equal_tensors(bias):
    from peft import LoraConfig

    torch.manual_seed(0)
    layer = nn.Linear(24, 32, bias=bias)
    theirs = wrapped(LoraConfig(r=3, lora_alpha=3, use_dora=True), {"query": layer})["query"]
    site = PartSite("query", layer)
    (delta,) = DoRA(rank=3).deltas([site])
    site.put(delta)
    magnitude = theirs.lora_magnitude_vector["default"].weight
    assert torch.equal(delta.magnitude, magnitude), "both start at the length of the layer's rows"
    pairs = [
        (delta.down.weight, theirs.lora_A["default"].weight),
        (delta.up.weight, theirs.lora_B["default"].weight),
        (delta.magnitude, magnitude),
    ]
    equalise(pairs)
    x = torch.randn(2, 5, 24)
    check(site, theirs, x, pairs)
    check_folded(site, x)


def test_behind_another_method_it_is_refused_and_before_it_folds():
    with pytest.raises(UserError, match="DoRA cannot act at query, where another method of the stack acts before it"):
        Stack([LoRA(rank=2, roles=["query"]), DoRA(rank=2)]).attach(tiny.vilt())
    torch.manual_seed(0)
    site = PartSite("query", nn.Linear(8, 8))
    for method in (DoRA(rank=2), LoRA(rank=2, dropout=0.0)):
        (delta,) = method.deltas([site])
        nn.init.normal_(delta.up.weight)
        site.put(delta)
    check_folded(site, torch.randn(2, 3, 8))


@pytest.mark.parametrize("rank", [0, 33, 1.5])
def test_a_wrong_rank_is_told_in_one_line(rank):
    with pytest.raises(UserError, match=f"method.rank={rank}: must be a whole number between 1 and the width 32"):
        DoRA(rank=rank).attach(tiny.vilt())
