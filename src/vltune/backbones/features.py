"""What a backbone hands to a task."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Features:
    """pooled: (B, pooled_width), from the class token.  text: (B, T, width) and image: (B, 1 + patches, width), the last
    layer's tokens, or None where only the class token was computed there."""

    pooled: Tensor
    text: Tensor | None = None
    image: Tensor | None = None
