"""Attention of this project's blocks, and which kernel computes it: the one place that decides.  That of Swin's tower and
of Stable Diffusion is their libraries', and a method's own (LST's side network) is torch's.

Fused attention keeps no weights in memory and is the faster one, but for three cases on a CPU. In bfloat16, where a head's
weights fit a processor's cache, its backward pass takes two to five times as long as plain matrix products do
(`bench/attention.py`), and its forward pass up to twice as long where the processor has no tiles (AMX). In training with
dropout of weights torch has no fused kernel, and draws slowly. So `auto` is plain in these, and fused everywhere else.
`engine.attention` forces one; both give the same to what kernels round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vltune.nn.dropout import dropout as drop

Kernel = Literal["auto", "fused", "plain"]
FEW = 2**19  # weights of a head, of queries times keys, that fit a cache

_chosen: Kernel = "auto"
_tiles = True
_used: set[tuple[str, Kernel]] = set()


def choose(kernel: Kernel, tiles: bool = True) -> None:
    """For this process, like its number of threads; what it has `used` begins anew.  tiles: whether its CPU multiplies
    bfloat16 by tiles."""
    global _chosen, _tiles
    _chosen, _tiles = kernel, tiles
    _used.clear()


def note(others: Mapping[str, Sequence[Kernel]]) -> None:
    """Adds what another process of the run has `used`."""
    _used.update((when, name) for when, names in others.items() for name in names)


def used() -> dict[str, list[Kernel]]:
    """{`training`, `inference`: the kernels that have computed attention in it}, but for what was compiled."""
    return {when: sorted(name for at, name in _used if at == when) for when in sorted({at for at, _ in _used})}


def kernel(device: str, lower: bool, trains: bool, drops: bool = False, weights: int = 0) -> Kernel:
    """Which one computes attention.  device: its type.  lower: whether in bfloat16.  trains: with a backward pass.
    drops: with dropout of weights.  weights: of a head, queries times keys."""
    if _chosen != "auto":
        return _chosen
    slow = lower and weights <= FEW and (trains or not _tiles)
    return "plain" if device == "cpu" and (slow or (trains and drops)) else "fused"


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """q: (B, heads, N, width), k and v: (B, heads, M, width) -> (B, heads, N, width)

    mask: bool, True = attend: (B, M), or (B, N, M) where that differs from token to token; of every head.  dropout: of the
    weights."""
    if mask is not None:
        mask = mask[:, None, None] if mask.dim() == 2 else mask[:, None]
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    chosen = kernel(q.device.type, q.dtype == torch.bfloat16, trains, dropout > 0, q.shape[-2] * k.shape[-2])
    if not torch.compiler.is_compiling():  # what is computed again may note nothing there
        _used.add(("training" if trains else "inference", chosen))
    if chosen == "fused":
        return F.scaled_dot_product_attention(q, k, v, mask, dropout)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = F.softmax(scores, -1).to(v.dtype)  # summed in float32 by every kernel of torch's
    return (drop(weights, dropout) if dropout else weights) @ v
