"""UniPELT (Mao et al. 2022, arXiv 2110.07577): several methods at once, each behind a learned gate at each of its sites.

    y + g (f(y) - y),  g = sigmoid(w z_1 + b): (B, 1, 1);  a prefix: keys g P_k, values g P_v

    f(y): what the method makes of y; z_1: (B, 1, width), the first token of what it reads there, or the one that stands
    for the sequence (CLIP's end of text): x at a layer, y at a sublayer's output, the layer's own keys at keys and values

w ~ N(0, 0.02), b = 0: half open at the start.  The paper takes the mean of the gates of all tokens, with padding among
them, and a prefix's gate reads what the keys are made of.  The first token, the class token where there is one, gives an
example the same gate in every batch, and in a last layer that is computed for it alone.  Any stack can be gated, of
methods that add to what stands there.

Price: keys and values of Stable Diffusion's cross-attention read the text from its beginning, a token which sees none of
the others: there a gate is one learned number, the same for every prompt.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from vltune.errors import UserError
from vltune.sites import Delta, KeyValueSite, OutputSite, OwnParameters, PartSite, Site
from vltune.tuning import Method, Stack, Tuning

GATED = (OutputSite, PartSite, KeyValueSite)


class UniPELT(Stack):
    def attach(self, backbone: nn.Module) -> Tuning:
        parts: list[tuple] = []
        for method in self.methods:
            sites = self.gated(method, backbone)
            made = method.deltas(sites)
            if any(isinstance(delta, OwnParameters) for delta in made):
                name = type(method).__name__
                raise UserError(f"method.methods: {name} trains a layer's own parameters, and there is nothing to gate")
            gates = [Gate(delta, site) for delta, site in zip(made, sites, strict=True)]
            for site, gate in zip(sites, gates, strict=True):
                site.put(gate)
            parts += [(method, sites, made), (self, sites, gates)]
        return Tuning(backbone, parts)

    def gated(self, method: Method, backbone: nn.Module) -> list[Site]:
        """Where it acts; UserError where a gate cannot."""
        sites, name = method.chosen(backbone), type(method).__name__
        if wrong := next((site for site in sites if not isinstance(site, GATED)), None):
            raise UserError(f"method.methods: {name} acts at {wrong.role}, which is {wrong.what}; it cannot be gated")
        if not sites:
            raise UserError(f"method.methods: {name} acts at no site, and there is nothing to gate")
        return sites


class Gate(Delta):
    """What another delta adds, times a number of each example."""

    def __init__(self, delta: Delta, site: Site):
        super().__init__()
        self.delta, self.gate, self.summary = delta, nn.Linear(site.in_width, 1), site.summary
        nn.init.normal_(self.gate.weight, std=0.02)
        nn.init.zeros_(self.gate.bias)

    def trained(self, site: Site) -> list[nn.Parameter]:
        return [*self.gate.parameters()]

    def open(self, read: Tensor) -> Tensor:
        """(B, N, in_width) or (B, H, W, in_width), as Swin's are -> (B, 1, 1), or (B, 1, 1, 1)"""
        first = read.flatten(1, -2)[:, :1] if self.summary is None else self.summary.read(read)
        return self.gate(first).sigmoid().view(-1, *[1] * (read.dim() - 1))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y + self.open(y) * (self.delta(y, x) - y)

    def around(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        y = part(x)
        return y + self.open(x) * (self.delta.around(Known(x, y), x) - y)

    def beside(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        own_keys, own_values = self.delta.beside(keys, values)
        share = self.open(keys)
        return share * own_keys, share * own_values


class Known:
    """A layer whose output is known, for a delta that adds to it; no other can be gated without computing it twice."""

    def __init__(self, x: Tensor, y: Tensor):
        self._x, self._y = x, y

    def __call__(self, x: Tensor) -> Tensor:
        if x is not self._x:
            raise self.refused()
        return self._y

    @property
    def weight(self) -> Tensor:
        raise self.refused()

    @property
    def bias(self) -> Tensor:
        raise self.refused()

    def refused(self) -> UserError:
        return UserError("method.methods: one of them changes what a layer reads, or its weight; it cannot be gated")
