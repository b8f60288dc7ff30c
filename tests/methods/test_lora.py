"""LoRA's branch, by hand: what is dropped and by what it is multiplied, in training and folded."""

import pytest
import torch
from torch import nn

from vltune.methods.lora import ClipLoRA, LoRA, LowRank
from vltune.sites import PartSite

IN, OUT, RANK = 6, 5, 2


@pytest.mark.parametrize(("method", "scale"), [(LoRA(RANK), 1.0), (ClipLoRA(RANK), RANK**-0.5)])
def test_it_is_the_equation(method, scale):
    torch.manual_seed(0)
    layer, x = nn.Linear(IN, OUT), torch.randn(2, 3, IN)
    delta = method.delta(PartSite("query", layer)).eval()
    assert torch.equal(delta.around(layer, x), layer(x)), "it starts as the layer"
    nn.init.normal_(delta.up.weight)
    expected = layer(x) + scale * (x @ delta.down.weight.T) @ delta.up.weight.T
    torch.testing.assert_close(delta.around(layer, x), expected)
    folded = delta.fold(layer)
    torch.testing.assert_close(nn.functional.linear(x, folded.weight, folded.bias), expected)


def test_dropout_is_of_what_the_branch_reads():
    """Of a mean of 10,000 inputs, each 1, hardly anything is lost; of the layer's own nothing."""
    torch.manual_seed(0)
    layer, delta = nn.Linear(10_000, 1), LowRank(10_000, 1, 1, dropout=0.5).train()
    with torch.no_grad():
        delta.down.weight.fill_(1e-4)
        delta.up.weight.fill_(1)
    x = torch.ones(1, 20, 10_000)
    added = delta.around(layer, x) - layer(x)
    torch.testing.assert_close(added, torch.ones_like(added), atol=0.06, rtol=0)
    assert added.unique().numel() > 10
