"""The position-wise feed-forward sublayer, with a site at its output."""

from __future__ import annotations

from torch import Tensor, nn

from vltune.sites import Site


class FeedForward(nn.Module):
    """(B, N, width) -> (B, N, width) through `hidden` units."""

    def __init__(self, width: int, hidden: int, activation: nn.Module, dropout: float = 0.0):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(hidden, width)
        self.at_output = Site("feed_forward_output", width, linear=self.down)

    def forward(self, x: Tensor) -> Tensor:
        return self.at_output(self.down(self.dropout(self.activation(self.up(x)))), x)
