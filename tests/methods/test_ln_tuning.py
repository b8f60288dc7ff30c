"""LN-tuning is PEFT's."""

import pytest
import tiny
import torch
from methods.peft_layers import check, equalise, wrapped
from torch import nn

from vltune.errors import UserError
from vltune.methods.ln_tuning import LNTuning
from vltune.sites import PartSite


def test_it_is_pefts_on_equal_tensors():
    from peft import LNTuningConfig

    norm = nn.LayerNorm(16)
    theirs = wrapped(LNTuningConfig(), {"norm": norm})["norm"]
    site = PartSite("norm", norm)
    (delta,) = LNTuning().deltas([site])
    site.put(delta)
    pairs = [*zip(delta.trained(site), theirs.ln_tuning_layers["default"].parameters(), strict=True)]
    assert [id(ours) for ours, _ in pairs] == [id(norm.weight), id(norm.bias)]
    equalise(pairs)
    check(site, theirs, torch.randn(2, 5, 16), pairs)


def test_another_layer_is_refused_in_one_line():
    with pytest.raises(UserError, match="LNTuning cannot act at query, which is no norm; it can at norm"):
        LNTuning(roles=["norm", "query"]).attach(tiny.vilt())
