"""A backbone's attention from queries, keys and values, and which kernel computes it: the one place that decides.

Fused attention keeps no weights in memory and is the faster one, but for one case: on a CPU its backward pass in bfloat16
takes two to five times as long as plain matrix products do (`bench/attention.py`).  So `auto` is plain there, in training,
and fused everywhere else.  `engine.attention` forces one; both give the same to what kernels round.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kernel = Literal["auto", "fused", "plain"]
_chosen: Kernel = "auto"


def choose(kernel: Kernel) -> None:
    """For this process, like its number of threads."""
    global _chosen
    _chosen = kernel


def kernel(*inputs: Tensor) -> Kernel:
    """Which one computes attention from these."""
    if _chosen != "auto":
        return _chosen
    q, trains = inputs[0], torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    return "plain" if trains and q.device.type == "cpu" and q.dtype == torch.bfloat16 else "fused"


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """q: (B, heads, N, width), k and v: (B, heads, M, width) -> (B, heads, N, width)

    mask: bool, True = attend: (B, M), or (B, N, M) where that differs from token to token; of every head.  dropout: of the
    weights."""
    if mask is not None:
        mask = mask[:, None, None] if mask.dim() == 2 else mask[:, None]
    if kernel(q, k, v) == "fused":
        return F.scaled_dot_product_attention(q, k, v, mask, dropout)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return F.dropout(F.softmax(scores, -1, dtype=torch.float32).to(v.dtype), dropout) @ v
