"""Prefix tuning (Li & Liang 2021, arXiv 2101.00190): keys and values of its own in every attention layer.

    attention over [K; P_k] and [V; P_v],  P_k, P_v: (prompts, width), beside keys and values that are projected already

The direct form: P_k and P_v are what is trained, N(0, 0.02) at the start.  The authors train an MLP that gives them, whose
size is many times theirs, and keep what it gave; at the end of training both are the same function.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vltune.sites import Delta, KeyValueSite, Site
from vltune.tuning import Method, check_size


class Prefix(Method):
    kinds = (KeyValueSite,)
    optional = ("cross_keys_values",)
    size = "prompts"

    def __init__(
        self,
        prompts: int = 20,
        init_std: float = 0.02,
        roles: Sequence[str] = ("keys_values", "cross_keys_values"),
    ):
        self.prompts, self.init_std, self.roles = prompts, init_std, roles

    def delta(self, site: Site) -> Delta:
        return KeysAndValues(check_size("prompts", self.prompts), site.width, self.init_std)


class KeysAndValues(Delta):
    def __init__(self, prompts: int, width: int, init_std: float):
        super().__init__()
        self.keys, self.values = (nn.Parameter(init_std * torch.randn(prompts, width)) for _ in range(2))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.keys, self.values
