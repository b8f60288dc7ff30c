"""BitFit (Ben Zaken et al. 2022, arXiv 2106.10199): the backbone's own biases are trained.

    W x + bias,  x: (B, N, in_width), bias: (width,); of all linear layers and norms of a block

The released code trains every bias of BERT, the embedding's and the pooler's among them.  A key's bias adds the same to
all scores of a query, which the softmax ignores: it is trained, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from vltune.sites import LINEAR_ROLES, Delta, OwnParameters, PartSite
from vltune.tuning import Method


class BitFit(Method):
    kinds = (PartSite,)

    def __init__(self, roles: Sequence[str] = (*LINEAR_ROLES, "norm")):
        self.roles = roles

    def misfit(self, site: PartSite) -> str | None:
        if site.part.bias is None:
            return "which has no bias"
        return None if isinstance(site.part.bias, nn.Parameter) else "whose bias is a share of a larger layer's"

    def delta(self, site: PartSite) -> Delta:
        return OwnParameters("bias")
