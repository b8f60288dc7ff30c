"""Activations by the names that configurations use."""

from __future__ import annotations

from torch import Tensor, nn


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), CLIP's approximation of GELU"""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1.702 * x).sigmoid()


ACTIVATIONS = {"gelu": nn.GELU, "quick_gelu": QuickGELU, "relu": nn.ReLU}
