"""Multi-head attention (Vaswani et al. 2017), with sites at its linear layers, keys and values, and output."""

from __future__ import annotations

from torch import Tensor, nn

from vltune.nn.attend import attend
from vltune.nn.lowered import lowered
from vltune.sites import KeyValueSite, OutputSite, PartSite, Site


class Attention(nn.Module):
    """x: (B, N, width) asks, memory: (B, M, width) answers; mask: (B, M) bool, True = attend, or (B, N, M) where that
    differs from token to token, or None.

    dropout: of attention weights, in training.  role: of the site of keys and values."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, role: str = "keys_values"):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.at_query = PartSite("query", self.query)
        self.at_key = PartSite("key", self.key)
        self.at_value = PartSite("value", self.value)
        self.at_keys_values = KeyValueSite(role, width)
        self.at_projection = PartSite("projection", self.out)
        self.at_output = OutputSite("attention_output", width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        x, memory = lowered(x, memory)
        k, v, mask = self.at_keys_values(self.at_key(memory), self.at_value(memory), mask)
        q, k, v = (self.split(y) for y in (self.at_query(x), k, v))
        y = attend(q, k, v, mask, self.dropout if self.training else 0.0)
        return self.at_output(self.at_projection(y.transpose(1, 2).flatten(2)), x)

    @property
    def sites_of_memory(self) -> tuple[Site, ...]:
        """Those that see the memory; the others see what asks."""
        return self.at_key, self.at_value, self.at_keys_values

    def split(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, heads, N, width / heads)"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
