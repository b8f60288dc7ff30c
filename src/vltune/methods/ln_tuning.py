"""LN-tuning (Basu et al. 2023, arXiv 2304.01917; Zhao et al. 2023, arXiv 2312.11420): the backbone's own norms are trained.

    LN(x) * weight + bias,  x: (B, N, width), weight, bias: (width,)

The norms of the blocks, and not those before and after them, which the first paper trains as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from vltune.sites import Delta, OwnParameters, PartSite
from vltune.tuning import Method


class LNTuning(Method):
    kinds = (PartSite,)

    def __init__(self, roles: Sequence[str] = ("norm",)):
        self.roles = roles

    def misfit(self, site: PartSite) -> str | None:
        return "which is no norm" if site.is_linear else None

    def delta(self, site: PartSite) -> Delta:
        return OwnParameters("weight", "bias")
