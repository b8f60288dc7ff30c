"""Textual inversion (Gal et al. 2022, arXiv 2208.01618, eq. 2): the embedding of one token is learned, and nothing else.

    v* = argmin E |f(z_t, t, c(y; v)) - target|^2,  v: (width,), what the token in the prompt y is to the text tower

It starts as the embedding of a word, the one for the subject's class unless `initial` says another.  Released: 3000 steps
at 5e-4 times the batch, without prior preservation, which has no weight to act on.
"""

from __future__ import annotations

from collections.abc import Sequence

from vltune.sites import Delta, OutputSite
from vltune.tuning import LearnedToken, OneToken


class TextualInversion(LearnedToken):
    """initial: a word of one token."""

    kinds = (OutputSite,)
    sites_in = "text"

    def __init__(self, initial: str | None = None, roles: Sequence[str] = ("words",)):
        self.initial, self.roles = initial, roles

    def misfit(self, site: OutputSite) -> str | None:
        return None if site.role == "words" else "which is not where words are embedded"

    def delta(self, site: OutputSite) -> Delta:
        return OneToken(site.width)
