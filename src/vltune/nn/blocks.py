"""Transformer blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vltune.layout import PatchLayout
from vltune.nn.attention import Attention
from vltune.nn.feed_forward import FeedForward
from vltune.sites import BlockSite, OutputSite, PartSite, TokenSite, lay


class PreNormBlock(nn.Module):
    """The pre-norm block of ViT (Dosovitskiy et al. 2021), as in ViLT and CLIP."""

    def __init__(self, width: int, heads: int, hidden: int, activation: nn.Module, dropout: float, eps: float):
        super().__init__()
        self.at_block = BlockSite("block", width)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.at_norm1 = PartSite("norm", self.norm1)
        self.at_memory = TokenSite("memory", width)
        self.attention = Attention(width, heads)
        self.at_parallel = OutputSite("parallel_output", width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.at_norm2 = PartSite("norm", self.norm2)
        self.feed_forward = FeedForward(width, hidden, activation, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, only: int | Tensor | None = None) -> Tensor:
        """x: (B, N, width), mask: (B, N), (B, N, N) or None -> (B, N, width), or (B, 1, width) where `only` one token is
        asked for, at the same place in all or each at its own, (B,): keys and values need every token, everything else of
        a token is its own affair."""
        only = None if self.at_block.every_token else only
        return self.at_block(x, lambda x: self.inside(x, mask, only), mask)

    def inside(self, x: Tensor, mask: Tensor | None, only: int | Tensor | None) -> Tensor:
        h = self.at_norm1(x)
        memory, mask = self.at_memory(h, mask, self.at_norm1)
        if only is not None:
            x, h = one(x, only), one(h, only)
            mask = mask if mask is None or mask.dim() == 2 else one(mask.expand(len(x), -1, -1), only)
        x = x + self.dropout(self.at_parallel(self.attention(h, memory, mask), h))
        return x + self.dropout(self.feed_forward(self.at_norm2(x)))


def one(x: Tensor, place: int | Tensor) -> Tensor:
    """(B, N, width) -> (B, 1, width): the token at a place, of each example's own where it is (B,)."""
    if isinstance(place, int):
        return x[:, place : place + 1]
    return x[torch.arange(len(x), device=x.device), place][:, None]


class PostNormAttention(nn.Module):
    """norm(x + attention(x, memory)), BERT's attention sublayer (Devlin et al. 2019).

    cross: the memory is another stream's sequence, which the roles of its sites say."""

    def __init__(self, width: int, heads: int, dropout: float, eps: float, cross: bool = False):
        super().__init__()
        self.at_memory = TokenSite("cross_memory" if cross else "memory", width)
        self.attention = Attention(width, heads, dropout, "cross_keys_values" if cross else "keys_values")
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.at_norm = PartSite("norm", self.norm)
        self.at_parallel = OutputSite("parallel_output", width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, N, width), memory: (B, M, width), mask: (B, M) or None -> (B, N, width)"""
        memory, mask = self.at_memory(memory, mask)
        return self.at_parallel(self.at_norm(x + self.dropout(self.attention(x, memory, mask))), x)


class PostNormFeedForward(nn.Module):
    """norm(x + feed_forward(x)), BERT's other sublayer; (B, N, width) -> (B, N, width)."""

    def __init__(self, width: int, hidden: int, activation: nn.Module, dropout: float, eps: float):
        super().__init__()
        self.feed_forward = FeedForward(width, hidden, activation)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.at_norm = PartSite("norm", self.norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.at_norm(x + self.dropout(self.feed_forward(x)))


class PostNormBlock(nn.Module):
    """The post-norm block of BERT, as in RoBERTa."""

    def __init__(self, width: int, heads: int, hidden: int, activation: nn.Module, dropout: float, eps: float):
        super().__init__()
        self.at_block = BlockSite("block", width)
        self.self_attention = PostNormAttention(width, heads, dropout, eps)
        self.feed_forward = PostNormFeedForward(width, hidden, activation, dropout, eps)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.at_block(x, lambda x: self.feed_forward(self.self_attention(x, x, mask)), mask)


class FusionBlock(nn.Module):
    """One stream's block of METER's co-attention (Dou et al. 2022): self-attention, cross-attention, feed-forward."""

    def __init__(self, width: int, heads: int, hidden: int, activation: nn.Module, dropout: float, eps: float):
        super().__init__()
        self.at_block = BlockSite("block", width)
        self.self_attention = PostNormAttention(width, heads, dropout, eps)
        self.cross_attention = PostNormAttention(width, heads, dropout, eps, cross=True)
        self.feed_forward = PostNormFeedForward(width, hidden, activation, dropout, eps)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        memory: Tensor,
        memory_mask: Tensor | None,
        attended: Tensor | None = None,
        first_only: bool = False,
    ) -> Tensor:
        """x: (B, N, width), mask (B, N) or None; memory: (B, M, width) and memory_mask (B, M) of the other stream.

        -> (B, N, width), or (B, 1, width) where only the first is asked for.  attended: what `alone` gives of x, where
        it is known."""
        first_only = first_only and not self.at_block.every_token

        def inside(own: Tensor) -> Tensor:
            known = attended is not None and own is x
            return self.together(attended if known else self.alone(own, mask, first_only), memory, memory_mask)

        return self.at_block(x, inside, mask)

    def lay(self, own: PatchLayout | None, other: PatchLayout | None) -> None:
        """Says how the patches lie in this stream's sequence and in the other's, which cross-attention reads."""
        cross = self.cross_attention
        lay(self, own)
        for part in (cross.at_memory, *cross.attention.sites_of_memory):
            lay(part, other)

    def alone(self, x: Tensor, mask: Tensor | None, first_only: bool = False) -> Tensor:
        """What this stream does before it sees the other: x (B, N, width) -> (B, N, width), or (B, 1, width)."""
        return self.self_attention(x[:, :1] if first_only else x, x, mask)

    def together(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, N, width), what `alone` gave; memory: (B, M, width) and mask (B, M) of the other stream."""
        return self.feed_forward(self.cross_attention(x, memory, mask))
