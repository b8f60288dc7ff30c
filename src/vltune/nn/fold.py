"""Pictures as the latents of a diffusion model without an autoencoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Fold(nn.Module):
    """Squares of `size` x `size` pixels become channels: (B, 3, H, W) <-> (B, 3 size^2, H / size, W / size)."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def encode(self, image: Tensor) -> Tensor:
        return F.pixel_unshuffle(image, self.size)

    def decode(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(latents, self.size)
