"""What a backbone makes of a batch: each modality by itself, then both together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vltune.errors import UserError


@dataclass
class Encoded:
    """What follows from one modality alone, so that it is computed once for all pairs that it is part of.

    tokens: (B, N, width).  mask: (B, N) bool, True = token, or None where nothing is masked.  attended: (B, N, width), what
    a two-stream backbone's first fusion layer makes of the tokens before it sees the other stream.
    """

    tokens: Tensor
    mask: Tensor | None = None
    attended: Tensor | None = None

    def __getitem__(self, rows) -> Encoded:
        """The examples that an index, a slice or a tensor of row numbers chooses."""
        return Encoded(*(None if part is None else part[rows] for part in (self.tokens, self.mask, self.attended)))

    def __len__(self) -> int:
        return len(self.tokens)

    def repeat(self, times: int) -> Encoded:
        """Each example `times` times in a row."""
        return self[torch.arange(len(self), device=self.tokens.device).repeat_interleave(times)]


@dataclass
class Features:
    """pooled: (B, pooled_width), from the class token.  text: (B, T, width) and image: (B, 1 + patches, width), the last
    layer's tokens, or None where only the class token was computed there."""

    pooled: Tensor
    text: Tensor | None = None
    image: Tensor | None = None


def check_last_layer(value: str) -> str:
    """`backbone.last_layer`: `class_token` computes the last layer for what a task's head reads alone, `all` for all."""
    if value not in ("class_token", "all"):
        raise UserError(f"backbone.last_layer={value}: must be class_token or all")
    return value
