"""Custom Diffusion (Kumari et al. 2023, arXiv 2212.04488, section 3.2): keys and values of cross-attention, and a token.

    K = W_k c,  V = W_v c,  c: (B, T, in_width), the text; W_k and W_v, (width, in_width), are trained themselves
    y = v* at the token, else its own embedding

Released: 250 steps of 4 pictures at 1e-5 times the batch, with 200 real pictures of the class.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from vltune.errors import UserError
from vltune.sites import Delta, OutputSite, OwnParameters, PartSite, Site, sites
from vltune.tuning import LearnedToken, OneToken


class CustomDiffusion(LearnedToken):
    """initial: a word of one token.  roles: of layers, those in cross-attention alone."""

    kinds = (PartSite, OutputSite)
    sites_in = "all"

    def __init__(self, initial: str | None = None, roles: Sequence[str] = ("key", "value", "words")):
        self.initial, self.roles = initial, roles

    def chosen(self, backbone: nn.Module) -> list[Site]:
        chosen = [site for site in super().chosen(backbone) if site.role == "words" or site.cross]
        acts = {site.role for site in chosen}
        if absent := [role for role in self.roles if role not in acts]:
            crossed = [site.role for site in sites(backbone) if site.cross and isinstance(site, PartSite)]
            raise UserError(
                f"method.roles={list(self.roles)}: CustomDiffusion trains layers in the cross-attention of a text-to-image "
                f"model, and {type(backbone).__name__} has no {absent[0]} there with method.sites_in={self.sites_in}; "
                f"it has {', '.join(dict.fromkeys(crossed)) or 'no layer'} there"
            )
        return chosen

    def misfit(self, site: Site) -> str | None:
        if site.role == "words" or isinstance(site, PartSite):
            return None
        return "which is neither a layer nor where words are embedded"

    def delta(self, site: Site) -> Delta:
        if site.role == "words":
            return OneToken(site.width)
        return OwnParameters(*(name for name in ("weight", "bias") if getattr(site.part, name) is not None))
