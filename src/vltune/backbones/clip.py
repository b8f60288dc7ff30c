"""CLIP's image tower (Radford et al. 2021, arXiv 2103.00020): a pre-norm transformer over image patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vltune.layout import PatchGrid, PatchLayout
from vltune.nn.activations import ACTIVATIONS
from vltune.nn.blocks import PreNormBlock
from vltune.nn.embeddings import unfold
from vltune.sites import lay


class ClipTower(nn.Module):
    """(B, 3, image_size, image_size) -> (B, 1 + patches, width), the class token first, normalised.

    layers: one fewer than CLIP has, where the tower leaves out the last block as METER's does.
    """

    pools_class_token = True

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        patch_size: int,
        image_size: int,
        activation: str = "quick_gelu",
    ):
        super().__init__()
        self.width, self.patch_size = width, patch_size
        self.patch = nn.Linear(3 * patch_size**2, width, bias=False)
        self.class_token = nn.Parameter(width**-0.5 * torch.randn(width))
        self.class_position = nn.Parameter(width**-0.5 * torch.randn(1, width))
        self.position = nn.Parameter(width**-0.5 * torch.randn((image_size // patch_size) ** 2, width))
        self.norm_in = nn.LayerNorm(width, eps=1e-5)
        self.blocks = nn.ModuleList(
            PreNormBlock(width, heads, hidden, ACTIVATIONS[activation](), dropout=0.0, eps=1e-5) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.grid = PatchGrid(image_size // patch_size, image_size // patch_size, start=1)
        lay(self.blocks, PatchLayout(self.grid))

    def forward(self, image: Tensor) -> Tensor:
        first = (self.class_token + self.class_position).expand(len(image), 1, -1)
        x = self.norm_in(torch.cat([first, self.patch(unfold(image, self.patch_size)) + self.position], dim=1))
        for block in self.blocks:
            x = block(x, None)
        return self.norm(x)
