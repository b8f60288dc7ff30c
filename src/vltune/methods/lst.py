"""Ladder side-tuning (Sung et al. 2022, arXiv 2206.06522): a narrow network beside the backbone.

    h_i = block_i(g_i h_{i-1} + (1 - g_i) D_i y_i),  h_0 = D_0 x_1,  g_i = sigmoid(alpha_i / 0.1)

    x_i, y_i: (B, N, width) what the backbone's block i reads and gives, h_i: (B, N, side), side = side_heads * head_width

Of the last block, U h_L stands in the place of y_L; the other blocks stay as they are.  So no gradient passes through them,
and training keeps none of their activations, provided nothing is trained before them: `method.always_trained=head_only`.
(ViLT-B, two examples of 241 tokens: 63 MiB are kept for the backward pass, 319 without that setting; with LoRA 314.)
As released: D and U without bias, alpha = 0, one block of the backbone's kind for each of its own.  Here each is a pre-norm
transformer block with GELU and random weights, where the paper prunes the backbone's; a stream of co-attention has a
ladder of its own, which sees the other one through y.  So has each list of blocks where a backbone has several in a row, a
UNet's transformers or Swin's stages: the last block of each is replaced, and gradients pass through what follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.sites import BlockSite, Delta
from vltune.tuning import Method, Tuning, check_size

TEMPERATURE = 0.1


class LST(Method):
    """head_width: of one head of the side network, whose own width is that of all.  side_heads: how many it has."""

    kinds = (BlockSite,)
    size = "head_width"

    def __init__(
        self, head_width: int = 8, side_heads: int = 12, dropout: float = 0.1, roles: Sequence[str] = ("block",)
    ):
        self.head_width, self.side_heads, self.dropout, self.roles = head_width, side_heads, dropout, roles

    def attach(self, backbone: nn.Module) -> Tuning:
        chosen = self.chosen(backbone)
        rows = series(backbone, chosen)
        again = any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules())
        if again and any(len(row) > 1 for row in rows):
            raise UserError(
                "backbone.gradient_checkpointing=true: computes blocks again from the last to the first, and LST climbs "
                "several blocks in a row from the first to the last; set engine.gradient_checkpointing=true instead"
            )
        made = {site: rung for row in rows for site, rung in zip(row, self.ladder(row), strict=True)}
        for site in chosen:
            site.put(made[site])
        return Tuning(backbone, [(self, chosen, [made[site] for site in chosen])])

    def ladder(self, sites: list[BlockSite]) -> list[Rung]:
        heads, head_width = check_size("side_heads", self.side_heads), check_size("head_width", self.head_width)
        side, carried = heads * head_width, []
        rungs = [Rung(site, SideBlock(side, heads, self.dropout), carried) for site in sites]
        rungs[0].first = nn.Linear(sites[0].width, side, bias=False)
        rungs[-1].up = nn.Linear(side, sites[-1].width, bias=False)
        return rungs


def series(backbone: nn.Module, chosen: list[BlockSite]) -> list[list[BlockSite]]:
    """Those whose blocks stand in one list, and so are called one after the other."""
    rows: dict[str, list[BlockSite]] = {}
    for name, module in backbone.named_modules():
        if module in chosen:
            rows.setdefault(name.rpartition(".")[0].rpartition(".")[0], []).append(module)
    return list(rows.values())


class Rung(Delta):
    """carried: what the rungs of a ladder share, h of the one before, in a list of one or none."""

    every_token = True

    def __init__(self, site: BlockSite, block: SideBlock, carried: list[Tensor]):
        super().__init__()
        self._site, self.carried = (site,), carried
        self.first: nn.Linear | None = None
        self.down = nn.Linear(site.width, block.width, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))
        self.block = block
        self.up: nn.Linear | None = None

    def around(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        y, gate = part(x), (self.gate / TEMPERATURE).sigmoid()
        before = self.carried.pop() if self.first is None else self.first(tokens(x))
        hidden = self.block(gate * before + (1 - gate) * self.down(tokens(y)), self._site[0].mask)
        if self.up is not None:
            return self.up(hidden).view_as(y)
        self.carried[:] = [hidden]
        return y


def tokens(x: Tensor) -> Tensor:
    """(B, N, width), also of an image of (B, H, W, width), as Swin's are."""
    return x.flatten(1, -2)


class SideBlock(nn.Module):
    """A pre-norm transformer block: (B, N, width), mask (B, N), (B, N, N) or None -> (B, N, width)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.width, self.heads = width, heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        return x + self.dropout(self.feed_forward(self.norm2(x)))

    def attention(self, x: Tensor, mask: Tensor | None) -> Tensor:
        parts = self.query_key_value(x).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        of_heads = None if mask is None else mask[:, None, None] if mask.dim() == 2 else mask[:, None]
        y = F.scaled_dot_product_attention(q, k, v, of_heads)
        return self.out(y.transpose(1, 2).flatten(2))
