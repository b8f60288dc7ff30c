"""Embeddings of words and of image patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vltune.errors import UserError


class TextEmbedding(nn.Module):
    """BERT's embeddings: (B, T) ids -> (B, T, width).

    first_position: the position of a text's first token; 0 in BERT, the padding's id + 1 in RoBERTa.
    """

    def __init__(
        self,
        vocabulary_size: int,
        positions: int,
        width: int,
        dropout: float,
        eps: float = 1e-12,
        segments: int = 2,
        first_position: int = 0,
    ):
        super().__init__()
        self.word = nn.Embedding(vocabulary_size, width)
        self.position = nn.Embedding(positions, width)
        self.segment = nn.Embedding(segments, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.first_position = first_position

    def forward(self, ids: Tensor) -> Tensor:
        length, most = ids.shape[1], self.position.num_embeddings - self.first_position
        if length > most:
            raise UserError(f"a text of {length} tokens exceeds the {most} positions of the backbone")
        position = self.position.weight[self.first_position : self.first_position + length]
        return self.dropout(self.norm(self.word(ids) + position + self.segment.weight[0]))


def unfold(image: Tensor, patch_size: int) -> Tensor:
    """(B, 3, H, W) -> (B, patches in raster order, 3 * patch_size^2)"""
    p = patch_size
    return image.unflatten(3, (-1, p)).unflatten(2, (-1, p)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def interpolate_positions(position: Tensor, grid: int) -> Tensor:
    """(g * g, width), trained for a square grid of g patches a side -> (grid * grid, width), bicubic."""
    side = round(len(position) ** 0.5)
    square = position.float().unflatten(0, (side, side)).permute(2, 0, 1)[None]
    larger = nn.functional.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return larger[0].flatten(1).t().to(position.dtype)


def where_needed(mask: Tensor) -> Tensor | None:
    """None where nothing is masked, which fused attention is faster with.  Waits for a device that the mask lies on."""
    return None if mask.all() else mask


def joint_mask(*parts: tuple[Tensor, Tensor | None]) -> Tensor | None:
    """The mask of several sequences put together, each given as (tokens, mask); None where none of them has one."""
    if all(mask is None for _, mask in parts):
        return None
    return torch.cat(
        [tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask for tokens, mask in parts], 1
    )
