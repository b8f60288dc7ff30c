"""Which tokens of a sequence are patches of an image, and how they lie: for methods that see images as grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PatchGrid:
    """Of a batch: `rows` x `columns` cells hold every image, each at the upper left.

    start: how many tokens stand before the first patch; what follows the last one is none either.
    place: (B, L) int64, the cell of each patch in raster order, rows * columns for a token that is padding; None where an
    image has rows * columns patches, in that order.
    """

    rows: int
    columns: int
    start: int = 0
    place: Tensor | None = None

    def __getitem__(self, rows) -> PatchGrid:
        """Of the examples that an index, a slice or a tensor of row numbers chooses."""
        return self if self.place is None else replace(self, place=self.place[rows])

    def kept(self, tokens: Tensor) -> PatchGrid:
        """Of the same images with some tokens left out, as many of each.  tokens: (B, N) bool, those that stay."""
        if self.place is None:
            return self
        patches = tokens[:, self.start : self.start + self.place.shape[1]]
        return replace(self, place=self.place[patches].unflatten(0, (len(patches), -1)))

    def after(self, tokens: int) -> PatchGrid:
        """The same with so many tokens more before it."""
        return replace(self, start=self.start + tokens)

    @property
    def patches(self) -> slice:
        """The tokens that are patches or an image's padding."""
        length = self.rows * self.columns if self.place is None else self.place.shape[1]
        return slice(self.start, self.start + length)

    def scatter(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, width, rows, columns), zero where an image has no patch."""
        patches = x[:, self.patches]
        if self.place is not None:
            cells = x.new_zeros(len(x), self.rows * self.columns + 1, x.shape[2])
            patches = cells.scatter(1, self.of_width(x.shape[2]), patches)[:, :-1]
        return patches.transpose(1, 2).unflatten(2, (self.rows, self.columns))

    def gather(self, cells: Tensor) -> Tensor:
        """(B, width, rows, columns) -> (B, L, width), zero for a token that is padding."""
        patches = cells.flatten(2).transpose(1, 2)
        if self.place is None:
            return patches
        return F.pad(patches, (0, 0, 0, 1)).gather(1, self.of_width(patches.shape[2]))

    def of_width(self, width: int) -> Tensor:
        return self.place[..., None].expand(-1, -1, width)

    def map(self, function: Callable[[Tensor], Tensor], x: Tensor, beside: Tensor) -> Tensor:
        """What a function of grids, (B, width, rows, columns) -> (B, out, rows, columns), makes of the patches among x.

        x: (B, N, width); beside: (B, N, out), what stands at all other tokens.  -> (B, N, out).  Where the last layer is
        computed for the first token alone, N is 1 and nothing is a patch."""
        if x.shape[1] <= self.start:
            return beside
        mapped, here = self.gather(function(self.scatter(x))), self.patches
        return torch.cat([beside[:, : here.start], mapped, beside[:, here.stop :]], dim=1)


class Summary:
    """Which token of a sequence stands for all of it, for the sites of a tower where that is not the first one.

    place: (B,) int64, set for each batch."""

    def __init__(self):
        self.place: Tensor | None = None

    def read(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, 1, width); the only token where N is 1."""
        if x.shape[1] == 1:
            return x
        return x[torch.arange(len(x), device=x.device), self.place][:, None]


class PatchLayout:
    """The grid of one sequence, which all sites that see the sequence share; its backbone sets it for each batch, or once
    where it is always the same."""

    def __init__(self, grid: PatchGrid | None = None):
        self.grid = grid
