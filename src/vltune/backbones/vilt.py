"""ViLT (Kim et al. 2021, arXiv 2102.03334): one transformer over text tokens and image patches.

The order of tokens is [class token, text 1..T-1, image class token, patches].  As in the code released with APT, a learned
class token stands in the place of the text's [CLS]; it starts as exactly what [CLS] would have been.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vltune.backbones.backbone import Backbone, Encoded, Features, check_last_layer
from vltune.batch import Batch
from vltune.layout import PatchGrid, PatchLayout
from vltune.nn.activations import ACTIVATIONS
from vltune.nn.blocks import PreNormBlock
from vltune.nn.embeddings import TextEmbedding, joint_mask, unfold, where_needed
from vltune.nn.heads import Pooler, bert_init
from vltune.sites import TokenSite, lay


class Vilt(Backbone):
    """
    image_size: pixels of the square image whose patch grid the position embeddings were trained for.
    max_image_len: at most so many patches an image (-1: all), drawn at random in training, evenly spaced otherwise.
    last_layer: `class_token` computes the last layer for the class token alone, all that a task's head reads;
        `all` for every token.
    """

    def __init__(
        self,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        patch_size: int = 32,
        image_size: int = 384,
        vocabulary_size: int = 30522,
        max_text_len: int = 40,
        token_types: int = 2,
        max_image_len: int = -1,
        activation: str = "gelu",
        dropout: float = 0.1,
        last_layer: str = "class_token",
    ):
        super().__init__()
        self.last_layer, self.max_image_len = check_last_layer(last_layer), max_image_len
        self.width = self.pooled_width = width
        self.text = TextEmbedding(vocabulary_size, max_text_len, width, dropout)
        self.image = ImageEmbedding(width, patch_size, image_size, dropout)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.token_type = nn.Embedding(token_types, width)
        self.at_sequence = TokenSite("sequence", width)
        self.blocks = nn.ModuleList(
            PreNormBlock(width, heads, hidden, ACTIVATIONS[activation](), dropout, eps=1e-6) for _ in range(layers)
        )
        self.layout = PatchLayout()
        lay(self.blocks, self.layout)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pooler = Pooler(width)
        self.apply(bert_init)

    def shared_parameters(self) -> list[nn.Parameter]:
        """What the paper trains with every method: pooler, token types and class token."""
        return [*self.pooler.parameters(), *self.token_type.parameters(), self.class_token]

    @torch.no_grad()
    def start_class_token(self, cls_id: int) -> None:
        """Sets the class token to the text embedding of [CLS] at position 0."""
        training = self.training
        self.text.eval()
        self.class_token.copy_(self.text(torch.full((1, 1), cls_id, device=self.class_token.device)))
        self.text.train(training)

    def arrange(self, batch: Batch) -> Batch:
        images = [key for key in batch if f"{key}_size" in batch]
        return super().arrange(batch) | {f"{image}_patches": self.patches(batch, image) for image in images}

    def patches(self, batch: Batch, image: str) -> Patches:
        return self.image.chosen(batch[image], batch[f"{image}_size"], self.max_image_len)

    def encode_text(self, batch: Batch, text: str = "text") -> Encoded:
        """batch: `text`_ids (B, T) int, `text`_mask (B, T) bool.  The class token comes first."""
        embedded = self.text(batch[f"{text}_ids"])
        first = self.class_token.expand(len(embedded), -1, -1)
        tokens = torch.cat([first, embedded[:, 1:]], 1) + self.token_type.weight[0]
        return Encoded(tokens, self.attends(batch, text))

    def encode_image(self, batch: Batch, image: str = "image", token_type: int = 1) -> Encoded:
        """batch: `image` (B, 3, H, W) zero-padded at the right and bottom, and `image`_size (B, 2), each image's height and
        width in pixels.  token_type: 1, or 2 for a second image."""
        chosen = batch.get(f"{image}_patches") or self.patches(batch, image)
        patches, mask, grid = self.image(batch[image], chosen)
        return Encoded(patches + self.token_type.weight[token_type], mask, grid=grid)

    def fuse(self, text: Encoded, image: Encoded) -> Features:
        x = torch.cat([text.tokens, image.tokens], dim=1)
        mask = joint_mask((text.tokens, text.mask), (image.tokens, image.mask))
        tokens, length = x.shape[1], text.tokens.shape[1]
        self.layout.grid = image.grid.after(length)
        x, mask = self.at_sequence(x, mask)
        for block in self.blocks[:-1]:
            x = block(x, mask)
        class_token_only = self.last_layer == "class_token"
        x = self.norm(self.blocks[-1](x, mask, only=0 if class_token_only else None))
        if class_token_only:
            return Features(self.pooler(x))
        return Features(self.pooler(x), x[:, :length], x[:, length:tokens])


class Patches(NamedTuple):
    """Which patches of a batch of images are kept.

    kinds: (U, 2), the grids that occur, in patches.  kind: (B,), which of them each image has.  keep: (B, L), indices into
    the padded raster; None where all images are of one size, which fills it, and every patch is kept.  real: (B, L) bool,
    which of those are patches; None where all are."""

    kinds: Tensor
    kind: Tensor | None = None
    keep: Tensor | None = None
    real: Tensor | None = None


class ImageEmbedding(nn.Module):
    """Patches of images of any size, with position embeddings interpolated to each image's own patch grid."""

    def __init__(self, width: int, patch_size: int, image_size: int, dropout: float):
        super().__init__()
        self.patch_size, self.grid = patch_size, image_size // patch_size
        # A Linear over unfolded patches is the same map as a strided convolution, and its backward is far faster on CPU.
        self.patch = nn.Linear(3 * patch_size**2, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.class_position = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(self.grid, self.grid, width))
        self.dropout = nn.Dropout(dropout)
        for parameter in (self.class_token, self.class_position, self.position):
            nn.init.trunc_normal_(parameter, std=0.02)

    def chosen(self, image: Tensor, size: Tensor, most: int) -> Patches:
        """Which patches are kept of images (B, 3, H, W) of size (B, 2) in pixels: at most so many of each, -1: all."""
        height, width = image.shape[2] // self.patch_size, image.shape[3] // self.patch_size
        grids = size.div(self.patch_size, rounding_mode="floor")
        counts = grids.prod(1)
        kinds, kind = torch.unique(grids, dim=0, return_inverse=True)
        longest = int(counts.max())
        if not (0 < most < longest or bool((counts < height * width).any())):
            return Patches(kinds)
        keep, real = self.choose(grids, height, width, most if 0 < most < longest else longest)
        return Patches(kinds, kind, keep, where_needed(real))

    def forward(self, image: Tensor, chosen: Patches) -> tuple[Tensor, Tensor | None, PatchGrid]:
        """image (B, 3, H, W) -> (B, 1 + L, width), mask (B, 1 + L) or None, and where these patches lie; L: the largest
        patch count."""
        patches = unfold(image, self.patch_size)
        height, width = image.shape[2] // self.patch_size, image.shape[3] // self.patch_size
        position = self.interpolate(chosen.kinds, height, width)
        mask, place = chosen.real, None
        if (keep := chosen.keep) is not None:
            patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[2]))
            position = position[chosen.kind].gather(1, keep[..., None].expand(-1, -1, position.shape[2]))
            place = keep if mask is None else torch.where(mask, keep, height * width)
        x = self.patch(patches) + position
        first = (self.class_token + self.class_position).expand(len(x), -1, -1)
        x = self.dropout(torch.cat([first, x], dim=1))
        return (
            x,
            None if mask is None else nn.functional.pad(mask, (1, 0), value=True),
            PatchGrid(height, width, 1, place),
        )

    def interpolate(self, grids: Tensor, height: int, width: int) -> Tensor:
        """grids (U, 2) in patches -> (U, height * width, width): bilinear with aligned corners, as two products with
        triangular kernels; what lies outside a grid is never read."""
        rows, columns = (self.kernel(grids[:, i], n) for i, n in ((0, height), (1, width)))
        mixed = torch.einsum("uhr,rcd->uhcd", rows, self.position)
        return torch.einsum("uwc,uhcd->uhwd", columns, mixed).flatten(1, 2)

    def kernel(self, lengths: Tensor, n: int) -> Tensor:
        """lengths (U,) -> (U, n, grid): how much of each trained position a new one takes."""
        step = (self.grid - 1) / (lengths - 1).clamp(min=1)
        at = torch.arange(n, device=lengths.device) * step[:, None]
        trained = torch.arange(self.grid, device=lengths.device)
        return (1 - (at[..., None] - trained).abs()).clamp(min=0).to(self.position.dtype)

    def choose(self, grids: Tensor, height: int, width: int, most: int) -> tuple[Tensor, Tensor]:
        """Indices (B, most) into the padded raster of the patches that are kept, and which of them are real."""
        row = torch.arange(height, device=grids.device)[:, None]
        column = torch.arange(width, device=grids.device)
        real = ((row < grids[:, 0, None, None]) & (column < grids[:, 1, None, None])).flatten(1)
        count, place = real.sum(1, keepdim=True), torch.arange(most, device=grids.device)
        if self.training:
            # A random order of the real patches, but only for images that have too many.
            noise = torch.rand(real.shape, device=grids.device) * (count > most)
            order = (noise + 2.0 * ~real).argsort(dim=1, stable=True)
            return order[:, :most], place < count
        order = (~real).to(torch.uint8).argsort(dim=1, stable=True)
        pick = torch.where(count > most, place * count // most, place)
        return order.gather(1, pick), place < count
