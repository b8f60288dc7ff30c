"""The position-wise feed-forward sublayer, with a site at both of its layers and at its output."""

from __future__ import annotations

from torch import Tensor, nn

from vltune.nn.lowered import lowered
from vltune.sites import OutputSite, PartSite


class FeedForward(nn.Module):
    """(B, N, width) -> (B, N, width) through `hidden` units."""

    def __init__(self, width: int, hidden: int, activation: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(hidden, width)
        self.at_up = PartSite("feed_forward_up", self.up)
        self.at_down = PartSite("feed_forward_down", self.down)
        self.at_output = OutputSite("feed_forward_output", width)

    def forward(self, x: Tensor) -> Tensor:
        (x,) = lowered(x)
        return self.at_output(self.at_down(self.dropout(self.activation(self.at_up(x)))), x)
