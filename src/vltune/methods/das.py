"""Dynamic architecture skipping (Wu et al. 2023, arXiv 2309.01479): blocks are left out, an adapter in the place of each.

    x + adapter(x) in the place of block(x);  y + adapter(x) beside each sublayer of a block that stays
    adapter(x) = up(relu(down(norm(x)))),  x: (B, N, width) what the block, or the sublayer, reads

Which blocks: before training, a short search.  Each of its steps leaves out blocks drawn with p_i = sigmoid(s_i) and trains
everything that the run will train.  Every `turn` steps it draws several selections, with v_k = exp(-loss) on one batch,
and moves s_i by sum_k (v_k - mean v) p_i (1 - p_i) over those that hold i.  Blocks with the largest s are left out; what
was trained starts anew.  Without a search, as costs are counted, they lie evenly.

As released: down to `bottleneck` beside sublayers and to twice that in a block's place, weights N(0, 0.02), biases 0.
There the adapters of a pre-norm block read its residual stream, here what its sublayers read; losses are of the next
training batch, there of one for validation; there the search is a run of its own, whose result one types.

In a stack, what another method puts inside a block that is left out counts among its parameters, and nothing trains it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.sites import BlockSite, Delta, OutputSite, Site
from vltune.tuning import Method, Tuning, check_size


class DAS(Method):
    """share: of the blocks that are left out.  search_steps: of the search, before training.  search_lr: its learning rate.
    turn: steps of the search between two comparisons.  samples: selections in a comparison, all different."""

    kinds = (BlockSite, OutputSite)
    size = "bottleneck"
    reads_input = True

    def __init__(
        self,
        bottleneck: int = 96,
        share: float = 0.33,
        search_steps: int = 200,
        search_lr: float = 1e-3,
        turn: int = 10,
        samples: int = 10,
        roles: Sequence[str] = ("block", "attention_output", "feed_forward_output"),
    ):
        self.bottleneck, self.share, self.roles = bottleneck, share, roles
        self.search_steps, self.search_lr, self.turn, self.samples = search_steps, search_lr, turn, samples

    def misfit(self, site: Site) -> str | None:
        if isinstance(site, BlockSite) and site.delta is not None:
            return "where another method acts, which a block that is left out would never call: put das before it"
        return None

    def at(self, deltas: Sequence[Delta], step: int, total: int) -> None:
        for delta in deltas:
            if isinstance(delta, InsteadOfBlock):
                delta.settle()

    def attach(self, backbone: nn.Module) -> Tuning:
        """Each place is searched by itself, after the one before."""
        found: dict[str, list[Site]] = {}
        for site in self.chosen(backbone):
            found.setdefault(site.place, []).append(site)
        made = [(self, sites, self.deltas(sites)) for sites in found.values()]
        for _, sites, deltas in made:
            for site, delta in zip(sites, deltas, strict=True):
                site.put(delta)
        return Tuning(backbone, made)

    def deltas(self, sites: Sequence[Site]) -> list[Delta]:
        bottleneck, rows = check_size("bottleneck", self.bottleneck), by_block(sites)
        for name in ("search_steps", "turn", "samples"):
            check_size(name, getattr(self, name))
        self.check(rows)
        count = round(self.share * len(rows))
        width, outputs = rows[0][0].width, len(rows[0]) - 1
        instead = nn.ModuleList(Narrow(width, 2 * bottleneck) for _ in range(count))
        beside = nn.ModuleList(
            nn.ModuleList(Narrow(width, bottleneck) for _ in range(outputs)) for _ in range(len(rows) - count)
        )
        blocks = [InsteadOfBlock(instead) for _ in rows]
        leave_out(blocks, spread(len(rows), count))
        of_row = ([block, *(BesideSublayer(beside, i, block) for i in range(outputs))] for block in blocks)
        return [delta for row in of_row for delta in row]

    def check(self, rows: list[list[Site]]) -> None:
        """UserError where no block would be left out, or where blocks could not take each other's adapters."""
        if not isinstance(self.share, float) or not 0 < round(self.share * len(rows)) < len(rows):
            raise UserError(
                f"method.share={self.share}: must leave out at least one of {len(rows)} blocks, and not all"
            )
        if len({tuple((site.role, site.width, site.in_width) for site in row) for row in rows}) > 1:
            raise UserError("method.roles: DAS moves adapters between blocks, and these blocks are not of one size")

    def start(self, deltas: Sequence[Delta], model: nn.Module, batches: Callable[[int], Iterable[dict]]) -> None:
        blocks = [delta for delta in deltas if isinstance(delta, InsteadOfBlock)]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        before, bandit = [parameter.detach().clone() for parameter in trained], Bandit(blocks, self.samples)
        optimiser = torch.optim.AdamW(trained, lr=self.search_lr)
        for step, parts in enumerate(by_step(batches(self.search_steps))):
            if step and step % self.turn == 0:
                bandit.look(lambda parts=parts: torch.stack([*losses(model, parts)]).sum())
            leave_out(blocks, bandit.draw())
            optimiser.zero_grad()
            for loss in losses(model, parts):
                add_gradients(loss, trained)
            optimiser.step()
        optimiser.zero_grad()
        if not bandit.looked:
            few = f"no selection was compared in {self.turn} steps or fewer"
            print(
                f"das: {few}, blocks are left out evenly: raise method.search_steps or engine.max_steps",
                file=sys.stderr,
            )
        leave_out(blocks, bandit.best() if bandit.looked else spread(len(blocks), bandit.count))
        with torch.no_grad():
            for parameter, start in zip(trained, before, strict=True):
                parameter.copy_(start)


def by_step(batches: Iterable[dict]) -> Iterator[list[dict]]:
    """The parts of each step."""
    parts: list[dict] = []
    for part in batches:
        parts.append(part)
        if not part.get("left"):
            yield parts
            parts = []


def losses(model: nn.Module, parts: Sequence[dict]) -> Iterator[Tensor]:
    """Of each part, times its share of the step's examples, so that their sum is the step's in whatever parts."""
    examples = sum(len(part["ids"]) for part in parts)
    return (model.task.loss(model(part), part) * (len(part["ids"]) / examples) for part in parts)


def add_gradients(loss: Tensor, trained: Sequence[nn.Parameter]) -> None:
    """Not by `backward`: where several processes train, it would start to share gradients."""
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)  # a tower may have no part in the task
    for parameter, gradient in zip(trained, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def by_block(sites: Sequence[Site]) -> list[list[Site]]:
    """Each block's site and those of its sublayers, which follow it."""
    rows: list[list[Site]] = []
    for site in sites:
        if isinstance(site, BlockSite):
            rows.append([])
        if not rows:
            raise UserError("method.roles: DAS needs the role block, where a block's own site comes first")
        rows[-1].append(site)
    return rows


class Bandit:
    """The preferences of a search, from which blocks are drawn as many as are left out."""

    def __init__(self, blocks: list[InsteadOfBlock], samples: int):
        self.blocks, self.scores, self.count = blocks, torch.zeros(len(blocks)), len(blocks[0].adapters)
        self.looked = False
        self.samples = min(samples, math.comb(len(blocks), self.count))
        self.generator = torch.Generator().manual_seed(torch.initial_seed())  # the same in every process

    def draw(self) -> set[int]:
        return {*torch.multinomial(self.scores.sigmoid(), self.count, generator=self.generator).tolist()}

    def distinct(self) -> Iterator[set[int]]:
        seen: list[set[int]] = []
        while len(seen) < self.samples:
            if (drawn := self.draw()) not in seen:
                seen.append(drawn)
                yield drawn

    @torch.no_grad()
    def look(self, loss: Callable[[], Tensor]) -> None:
        """Compares several selections by a loss."""
        self.looked, values = True, []
        for selection in (selections := [*self.distinct()]):
            leave_out(self.blocks, selection)
            values.append(math.exp(-loss().item()))
        share, mean = self.scores.sigmoid(), sum(values) / len(values)
        if not math.isfinite(mean):
            raise UserError("the loss is not a number in DAS's search: lower method.search_lr")
        for selection, value in zip(selections, values, strict=True):
            for i in selection:
                self.scores[i] += (value - mean) * share[i] * (1 - share[i])

    def best(self) -> set[int]:
        return {*self.scores.argsort(descending=True, stable=True)[: self.count].tolist()}


def spread(blocks: int, count: int) -> set[int]:
    """So many of the blocks, evenly, the last one among them."""
    return {blocks - 1 - i * blocks // count for i in range(count)}


def leave_out(blocks: Sequence[InsteadOfBlock], chosen: set[int]) -> None:
    """Gives each that is left out an adapter in its place, and each other one a set of those beside its sublayers."""
    left, kept = 0, 0
    for i, block in enumerate(blocks):
        if i in chosen:
            block.slot.fill_(left)
            left += 1
        else:
            kept += 1
            block.slot.fill_(-kept)
        block.settle()


class InsteadOfBlock(Delta):
    """slot: of `adapters` the one in the place of the block; -k where it stays, with the k-th set beside its sublayers.

    Price: it is read on the host, once a forward pass."""

    def __init__(self, adapters: nn.ModuleList):
        super().__init__()
        self.adapters = adapters
        self.register_buffer("slot", torch.zeros((), dtype=torch.int64, device="cpu"))  # also where shapes alone count
        self.settle()

    def settle(self) -> None:
        """Has compiled code, which can branch by no tensor, take the slot as it is now."""
        self.settled = int(self.slot)

    def place(self) -> int:
        return self.settled if torch.compiler.is_compiling() else int(self.slot)

    def around(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        slot = self.place()
        return part(x) if slot < 0 else x + self.adapters[slot](x)


class BesideSublayer(Delta):
    """adapters: a set for each block that stays; number: this one's in a set.

    A sublayer can be computed although its block is left out: METER reads the first block's own before its streams meet."""

    def __init__(self, adapters: nn.ModuleList, number: int, block: InsteadOfBlock):
        super().__init__()
        self.adapters, self.number, self._block = adapters, number, (block,)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        slot = self._block[0].place()
        return y if slot >= 0 else y + self.adapters[-1 - slot][self.number](x)


class Narrow(nn.Module):
    """(B, N, width) -> (B, N, width)"""

    def __init__(self, width: int, bottleneck: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(self.norm(x)).relu())
