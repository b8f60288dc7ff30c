"""Dropout whose mask costs on a CPU what its memory costs, where torch draws a number for each element by one thread."""

from __future__ import annotations

import weakref
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16  # of a draw: 16 bits for each element


def quicken(module: nn.Module) -> None:
    """Has every `nn.Dropout` of a module, a library's too, be one of these."""
    for each in module.modules():
        if type(each) is nn.Dropout:
            each.__class__ = Dropout


def dropout(x: Tensor, p: float) -> Tensor:
    """x with each element zero with probability p, to a part in 65,536, and the others larger by as much as keeps the mean.

    Elsewhere than on a CPU, and in what torch compiles, it is torch's."""
    if not drawn_here(x, p):
        return F.dropout(x, p)
    return apply(x, mask(x.shape, p, x.dtype), p)


def drawn_here(x: Tensor, p: float) -> bool:
    return x.device.type == "cpu" and 0 < p < 1 and not torch.compiler.is_compiling()


def level(p: float) -> int:
    """Of LEVELS, how many are dropped: at least one, and not all."""
    return min(max(round(p * LEVELS), 1), LEVELS - 1)


def mask(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
    """(shape) of 1 where an element is kept and 0 where not, as torch's generator decides, which gives but a seed."""
    count = shape.numel()
    generator = np.random.SFC64(int(torch.randint(2**63 - 1, ())))
    drawn = torch.from_numpy(generator.random_raw(-(-count // 4)).view(np.int16))[:count]
    return torch.ge(drawn, level(p) - LEVELS // 2, out=torch.empty(count, dtype=dtype)).view(shape)


def apply(x: Tensor, kept: Tensor, p: float) -> Tensor:
    return x * kept * (LEVELS / (LEVELS - level(p)))


class Dropout(nn.Dropout):
    """Those that see the same tensor one after another, as the sites of query and value do, share a mask."""

    last: ClassVar[tuple[weakref.ref, float, Tensor] | None] = None
    """Of all of them: what was seen, the share that is dropped, and the mask."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if not drawn_here(x, self.p):
            return F.dropout(x, self.p)
        last = Dropout.last
        if last is None or last[0]() is not x or last[1] != self.p:
            last = Dropout.last = (weakref.ref(x), self.p, mask(x.shape, self.p, x.dtype))
        return apply(x, last[2], self.p)
