"""Blocks that keep what they read, and are computed again for their gradients (Chen et al. 2016, arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vltune.layout import PatchLayout, Summary
from vltune.nn.dropout import Dropout
from vltune.sites import BlockSite, sites


class Recomputed(BlockSite):
    """A block that a method acts on as a whole stays as it is: what it says there may be said once.

    told: what each forward pass tells the sites of the model anew.  A step may hold several passes, of other grids or
    texts, and the gradients of the first are computed after the last."""

    told: tuple[PatchLayout | Summary, ...] = ()

    def forward(self, x: Tensor, block: Callable[[Tensor], Tensor], mask: Tensor | None = None) -> Tensor:
        if self.delta is not None or not torch.is_grad_enabled():
            return super().forward(x, block, mask)
        if torch.compiler.is_compiling():  # where torch draws the masks, and none is shared
            return checkpoint(lambda: block(x), use_reentrant=False)
        shared = Dropout.last  # the first dropout of the block may have the mask of the one before it
        told = [{**vars(each)} for each in self.told]

        def computed() -> Tensor:
            Dropout.last = shared
            for each, then in zip(self.told, told, strict=True):
                vars(each).update(then)
            return block(x)  # the same x: a block may know it

        return checkpoint(computed, use_reentrant=False)


def recompute(module: nn.Module) -> None:
    """Has every block of a module be one of these: the same gradients to the bit, for a third more time."""
    told = dict.fromkeys(each for site in sites(module) for each in (site.layout, site.summary) if each is not None)
    for site in sites(module):
        if type(site) is BlockSite:
            site.__class__, site.told = Recomputed, tuple(told)
