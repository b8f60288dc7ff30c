"""Transformer blocks."""

from __future__ import annotations

from torch import Tensor, nn

from vltune.nn.attention import Attention
from vltune.nn.feed_forward import FeedForward
from vltune.sites import TokenSite


class PreNormBlock(nn.Module):
    """The pre-norm block of ViT (Dosovitskiy et al. 2021), as in ViLT."""

    def __init__(self, width: int, heads: int, hidden: int, activation: nn.Module, dropout: float, eps: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.at_memory = TokenSite("memory", width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.feed_forward = FeedForward(width, hidden, activation, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, first_only: bool = False) -> Tensor:
        """x: (B, N, width), mask: (B, N) or None -> (B, N, width), or (B, 1, width) where only the first is asked for:
        keys and values need every token, everything else of a token is its own affair."""
        h = self.norm1(x)
        memory, mask = self.at_memory(h, mask, self.norm1)
        if first_only:
            x, h = x[:, :1], h[:, :1]
        x = x + self.dropout(self.attention(h, memory, mask))
        return x + self.dropout(self.feed_forward(self.norm2(x)))
