"""Poolers and classifiers that read a backbone's features."""

from __future__ import annotations

from torch import Tensor, nn


class Pooler(nn.Module):
    """(B, N, width) -> (B, width): tanh of a linear map of the first token (BERT, Devlin et al. 2019)."""

    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x[:, 0]).tanh()


def classifier(in_width: int, hidden: int, classes: int) -> nn.Sequential:
    """(B, in_width) -> (B, classes): the two-layer head that ViLT and METER put on pooled features."""
    head = nn.Sequential(nn.Linear(in_width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, classes))
    return head.apply(bert_init)


def bert_init(module: nn.Module) -> None:
    """N(0, 0.02) weights, zero biases (BERT); for `Module.apply`."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
