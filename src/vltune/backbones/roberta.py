"""RoBERTa (Liu et al. 2019, arXiv 1907.11692) as a text tower: BERT's post-norm transformer over tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.nn.activations import ACTIVATIONS
from vltune.nn.blocks import PostNormBlock
from vltune.nn.embeddings import TextEmbedding


class RobertaTower(nn.Module):
    """ids (B, T), mask (B, T) bool or None -> (B, T, width); with `multiple` (B, T', width), T' the next multiple of it,
    where what follows T means nothing.

    positions: rows of the position table; first_position: of a text's first token, RoBERTa's padding id + 1.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        vocabulary_size: int,
        positions: int,
        first_position: int = 2,
        segments: int = 1,
        activation: str = "gelu",
        dropout: float = 0.1,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.width = width
        self.embedding = TextEmbedding(vocabulary_size, positions, width, dropout, eps, segments, first_position)
        self.blocks = nn.ModuleList(
            PostNormBlock(width, heads, hidden, ACTIVATIONS[activation](), dropout, eps) for _ in range(layers)
        )

    def forward(self, ids: Tensor, mask: Tensor | None, multiple: int = 1) -> Tensor:
        x, extra = self.embedding(ids), -ids.shape[1] % multiple
        if multiple > 1:
            mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
            x, mask = F.pad(x, (0, 0, 0, extra)), F.pad(mask, (0, extra))
        for block in self.blocks:
            x = block(x, mask)
        return x
