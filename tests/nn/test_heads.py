"""How a head starts."""

import pytest
import torch
from torch import nn

from vltune.nn.heads import classifier


def test_a_classifier_starts_as_bert():
    torch.manual_seed(0)
    first, norm, _, last = classifier(200, 300, 100)
    assert [layer.weight.std().item() for layer in (first, last)] == pytest.approx([0.02, 0.02], rel=0.02)
    assert all(not layer.bias.any() for layer in (first, norm, last))
    assert norm.weight.eq(1).all() and isinstance(norm, nn.LayerNorm)
