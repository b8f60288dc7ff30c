"""What a tuning method is, and what attaching one to a backbone gave.

A method is light and holds settings alone; what it does at a site, parameters among it, is a delta.  Everything else
(training, costs, caches, checkpoints) asks the `Tuning` that attaching returned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.sites import PLACES, ROLES, Delta, OutputSite, OwnParameters, PartSite, Site, TokenSite, sites

ALWAYS_TRAINED = ("paper", "head_only")


class Method:
    """A tuning method: the roles it wants and the delta it puts there.

    A subclass that acts at sites sets `roles` in its constructor and defines `delta(site)`, or `deltas(sites)` where sites
    share something.
    kinds: of sites, where it can act; `misfit` tells what else must hold.  optional: roles that a backbone need not have.
    sites_in: one of PLACES.  always_trained: `paper`, what the paper trains with every method (token types, class token,
    pooler), or `head_only`, the task's head alone.  size: the argument that says how large it is, which `+match=...`
    chooses; None where there is none.  reads_input: whether it computes with what a sublayer reads, which where words
    are embedded is ids.  counts_with: of arguments that count for nothing unless another has a value, that other and the
    value.
    """

    roles: Sequence[str]
    optional: Sequence[str] = ()
    kinds: tuple[type[Site], ...] = (OutputSite, PartSite)
    sites_in = "fusion"
    always_trained = "paper"
    size: str | None = None
    reads_input = False
    tunes_backbone = False
    counts_with: ClassVar[Mapping[str, tuple[str, str | None]]] = {}

    def delta(self, site: Site) -> Delta:
        raise TypeError(f"{type(self).__name__} asks for roles {tuple(self.roles)} but makes no delta")

    def deltas(self, sites: Sequence[Site]) -> list[Delta]:
        """One for each site.  A module or a parameter that several of them hold is one: counted, trained and saved once."""
        return [self.delta(site) for site in sites]

    def misfit(self, site: Site) -> str | None:
        """Why it cannot act at a site of its kinds; None where it can."""
        return None

    def check_start(self, deltas: Sequence[Delta], model: nn.Module) -> None:
        """Before anything is computed: UserError where it could not start."""

    def start(self, deltas: Sequence[Delta], model: nn.Module, batches: Callable[[int], Iterable[dict]]) -> None:
        """Before the first step, with the model on its device: what has to see data.

        batches(n): what the first n steps will see, on that device; the same in every process, in parts whose sizes mean
        nothing, each with `left`, how many more of its step follow it.  What it decides must be in what is trained or in
        the deltas' persistent buffers, which are saved, and which every process takes from the first."""

    def at(self, deltas: Sequence[Delta], step: int, total: int) -> None:
        """Before each optimiser step, counted from 0: a schedule."""

    def penalty(self, deltas: Sequence[Delta]) -> Tensor | None:
        """What is added to the loss, a scalar; None: nothing."""
        return None

    def attach(self, backbone: nn.Module) -> Tuning:
        """Puts a delta at every site of the wanted roles and places.

        UserError, before anything is changed, where a role or a place is none, is not on this backbone, or is not for
        this method."""
        chosen = self.chosen(backbone)
        if not chosen and hasattr(self, "roles"):
            nothing = f"{type(self).__name__} has no site on {type(backbone).__name__} and would tune nothing"
            raise UserError(f"method.roles={list(self.roles)}: {nothing}; choose other roles, or method.sites_in")
        made = self.deltas(chosen)
        for site, delta in zip(chosen, made, strict=True):
            if isinstance(delta, OwnParameters) and site.delta is not None and site.delta.own_layer:
                raise UserError(
                    f"method.methods: {type(self).__name__} trains the backbone's layer at {site.role}, and a method "
                    "before it computes with another one there: leave one of them out"
                )
        for site, delta in zip(chosen, made, strict=True):
            site.put(delta)
        return Tuning(backbone, [(self, chosen, made)])

    def chosen(self, backbone: nn.Module) -> list[Site]:
        """The sites where it acts.  Errors: `attach`'s."""
        if not hasattr(self, "roles"):
            return []
        if not is_texts(self.roles) or not self.roles:
            raise UserError(f"method.roles={self.roles}: must be a list of one or more of {', '.join(ROLES)}")
        if self.sites_in not in PLACES:
            raise UserError(f"method.sites_in={self.sites_in}: must be one of {', '.join(PLACES)}")
        for role in self.roles:
            if role not in ROLES:
                raise UserError(f"method.roles: there is no role '{role}'; there are {', '.join(ROLES)}")
        here = [site for site in sites(backbone) if site.place in PLACES[self.sites_in]]
        chosen = [site for site in here if site.role in self.roles]
        for site in chosen:
            if reason := self.cannot(site):
                able = dict.fromkeys(each.role for each in here if not self.cannot(each))
                raise UserError(
                    f"method.roles={list(self.roles)}: {type(self).__name__} cannot act at {site.role}, {reason}; "
                    f"it can at {', '.join(able) or 'none of the sites here'}"
                )
        self.check_coverage(type(backbone).__name__, here, chosen)
        return chosen

    def cannot(self, site: Site) -> str | None:
        if site.delta is not None and site.delta.counts_places:
            return "where another method of the stack finds its tokens by their places"
        if site.role == "words" and self.reads_input:
            return "where it would read the ids of words, with which nothing can be computed"
        return self.misfit(site) if isinstance(site, self.kinds) else f"which is {site.what}"

    def check_coverage(self, backbone: str, here: Sequence[Site], chosen: Sequence[Site]) -> None:
        """UserError where a role that was asked for is nowhere, or a place that was asked for has none of the roles."""
        asked, known = f"method.roles={list(self.roles)}", {site.role for site in here}
        offered = ", ".join(role for role in ROLES if role in known) or "none"
        absent = [role for role in self.roles if role not in known and role not in self.optional]
        if absent or not chosen:
            role = absent[0] if absent else self.roles[0]
            raise UserError(
                f"{asked}: {backbone} has no site {role} with method.sites_in={self.sites_in}; it offers {offered} there"
            )
        acted = {site.place for site in chosen}
        for place in dict.fromkeys(site.place for site in here):
            if place not in acted:
                raise UserError(
                    f"{asked}: with method.sites_in={self.sites_in} the {place} part of {backbone} would be left as it is, "
                    f"which has no such site; choose method.sites_in={'|'.join(sorted(acted))}, or other roles"
                )


class LinearMethod(Method):
    """A method of linear layers alone."""

    kinds = (PartSite,)

    def misfit(self, site: PartSite) -> str | None:
        return None if site.is_linear else "which is no linear layer"


class LearnedWords(Method):
    """Tokens in a text that images are compared with, each delta's `prompts`.  words: a text of so many tokens at least,
    whose first ones they start as; None: as the delta starts them."""

    kinds = (TokenSite,)
    size = "prompts"
    sites_in = "text"
    counts_with: ClassVar = {"init_std": ("words", None)}
    prompts: int
    words: str | None

    def misfit(self, site: TokenSite) -> str | None:
        return None if site.image_width else "which is no text that images are compared with"

    def start(self, deltas: Sequence[Delta], model: nn.Module, batches: Callable[[int], Iterable[dict]]) -> None:
        if self.words is not None:
            for delta in deltas:
                delta.prompts.data.copy_(embedded(model, self.words, self.prompts))


class OneToken(Delta):
    """What one token of a text is to the tower that reads it, in the place of its own embedding.

    token: its id, -1 until `LearnedToken.start` has read it."""

    def __init__(self, width: int):
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(width))
        self.register_buffer("token", torch.tensor(-1))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """y: (B, T, width), the embeddings of the ids x, (B, T)."""
        return torch.where((x == self.token)[..., None], self.vector.to(y.dtype), y)


class LearnedToken(Method):
    """A method that learns what the token of a subject is: a `OneToken` at the role `words`.  initial: a word that it
    starts as; None: the word for the subject's class."""

    initial: str | None = None

    def check_start(self, deltas: Sequence[Delta], model: nn.Module) -> None:
        if self.learned(deltas):
            self.tokens(model.task)

    def start(self, deltas: Sequence[Delta], model: nn.Module, batches: Callable[[int], Iterable[dict]]) -> None:
        if learned := self.learned(deltas):
            token, first = self.tokens(model.task)
            for delta in learned:
                delta.token.fill_(token)
                delta.vector.data.copy_(model.backbone.embed_words(torch.tensor([first], device=delta.token.device))[0])

    @staticmethod
    def learned(deltas: Sequence[Delta]) -> list[OneToken]:
        return [delta for delta in deltas if isinstance(delta, OneToken)]

    def tokens(self, task: nn.Module) -> tuple[int, int]:
        """The ids of the subject's token, and of the word that it starts as.  UserError where one is no single token."""
        initial = self.initial or task.noun.split()[-1]
        token = one_token(task.tokenizer, task.token, f"task.token={task.token}")
        return token, one_token(task.tokenizer, initial, f"method.initial={initial}")


class Stack(Method):
    """Several methods at once; at a site that two of them want, the later one acts on what the earlier one gives.

    Each has its own roles, places and sizes; `always_trained` is the stack's.  UserError for one that tunes the backbone,
    as there is nothing to add to it, and for none."""

    def __init__(self, methods: Sequence[Method]):
        self.methods = list(methods)
        if not self.methods:
            raise UserError("method.methods: names no method, and nothing would be tuned; give one or more")
        if whole := [type(method).__name__ for method in self.methods if method.tunes_backbone]:
            raise UserError(f"method.methods: {whole[0]} trains every weight, and nothing can be stacked with it")

    def attach(self, backbone: nn.Module) -> Tuning:
        return Tuning(backbone, [each for method in self.methods for each in method.attach(backbone).parts])


class Tuning:
    """A method on a backbone.  parts: each method with its sites and its deltas there."""

    def __init__(self, backbone: nn.Module, parts: Sequence[tuple[Method, Sequence[Site], Sequence[Delta]]]):
        self.backbone, self.parts = backbone, list(parts)
        self.sites = list(dict.fromkeys(site for _, sites, _ in self.parts for site in sites))

    @property
    def trained(self) -> list[nn.Parameter]:
        """Each parameter once."""
        found = {
            id(parameter): parameter
            for _, sites, deltas in self.parts
            for site, delta in zip(sites, deltas, strict=True)
            for parameter in delta.trained(site)
        }
        return list(found.values())

    def places_of(self, parameters: Container[int]) -> list[str]:
        """Places where it trains one of these, each by its `id`."""
        found = {
            site.place: None
            for _, sites, deltas in self.parts
            for site, delta in zip(sites, deltas, strict=True)
            if any(id(parameter) in parameters for parameter in delta.trained(site))
        }
        return [*found]

    @property
    def looks_at_data(self) -> bool:
        """Before training."""
        return any(type(method).start is not Method.start for method, _, _ in self.parts)

    def check_start(self, model: nn.Module) -> None:
        for method, _, deltas in self.parts:
            method.check_start(deltas, model)

    def start(self, model: nn.Module, batches: Callable[[int], Iterable[dict]]) -> None:
        for method, _, deltas in self.parts:
            method.start(deltas, model, batches)

    def at(self, step: int, total: int) -> None:
        for method, _, deltas in self.parts:
            method.at(deltas, step, total)

    def penalty(self) -> Tensor | None:
        found = [penalty for method, _, deltas in self.parts if (penalty := method.penalty(deltas)) is not None]
        return torch.stack(found).sum() if found else None

    def acts_in(self, part: nn.Module) -> bool:
        """Whether one of its sites lies there."""
        inside = {*sites(part)}
        return any(site in inside for site in self.sites)

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Inference with everything computed once that is constant outside training."""
        try:
            with torch.no_grad():
                for site in self.sites:
                    site.fold()
            yield
        finally:
            for site in self.sites:
                site.unfold()

    @contextmanager
    def off(self) -> Iterator[None]:
        """The backbone without its method, as pretrained where no parameter of its own was trained."""
        before = [(site, site.delta) for site in self.sites]
        self.detach()
        try:
            yield
        finally:
            for site, delta in before:
                site.delta = delta

    def detach(self) -> None:
        for site in self.sites:
            site.delta = None

    def decided(self) -> dict[str, Tensor]:
        """By their names in the backbone, what deltas hold and no optimiser trains: buffers, and parameters that stay.

        A tensor that several deltas hold has the first one's name.  Left out are buffers that are not persistent."""
        tuned = {*self.sites}
        names = {module: name for name, module in self.backbone.named_modules() if module in tuned}
        held = {
            id(tensor): (f"{names[site]}.delta.{name}", tensor)
            for site in reversed(self.sites)
            for name, tensor in reversed(site.delta.state_dict(keep_vars=True).items())
            if not tensor.requires_grad
        }
        return dict(held.values())

    def macs_as_published(self, tokens: Mapping[Site, int]) -> int | None:
        """The sum of the published closed forms.  tokens: of the sequence that each site sees; those that a forward pass
        did not reach are left out.  None where the paper has no such method."""
        counted = [
            delta.macs_as_published(site, tokens[site])
            for _, sites, deltas in self.parts
            for site, delta in zip(sites, deltas, strict=True)
            if site in tokens
        ]
        return None if None in counted else sum(counted)


def one_token(tokenizer: Callable[[str], list[int]], word: str, setting: str) -> int:
    """The id of a word.  UserError where it is several tokens, or none of the vocabulary."""
    around = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id)
    ids = [each for each in tokenizer(word) if each not in around]
    if len(ids) != 1:
        raise UserError(f"{setting}: is {len(ids)} tokens of this vocabulary; choose a word that is one")
    return ids[0]


def embedded(model: nn.Module, words: str, most: int) -> Tensor:
    """(most, width) What a text's first tokens are to the text tower, for prompts to start as.  UserError where there are
    fewer."""
    ids = model.task.tokenizer(words)[1:-1][:most]
    if len(ids) < most:
        raise UserError(f"method.words={words!r}: has {len(ids)} tokens, and method.prompts={most}; give as many")
    return model.backbone.embed_words(torch.tensor(ids, device=next(model.parameters()).device))


def is_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


def started_prompts(prompts: int, width: int, bound: float | None) -> nn.Parameter:
    """(prompts, width), uniform up to `bound`; None: Xavier-uniform with fan-in = fan-out = width, VPT's at width 768."""
    bound = math.sqrt(3 / width) if bound is None else bound
    return nn.Parameter(torch.empty(prompts, width).uniform_(-bound, bound))


def check_size(name: str, value: int, most: int | None = None) -> int:
    """A size that a user typed: a whole number of at least 1 and, where it is bounded, at most `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (most is not None and value > most):
        bound = "at least 1" if most is None else f"between 1 and the width {most}"
        raise UserError(f"method.{name}={value}: must be a whole number {bound}")
    return value


def check_parts(name: str, value: int, whole: int) -> int:
    """A number of equal parts that a user typed: a whole number of at least 1 that divides `whole`, a width."""
    if whole % check_size(name, value, whole):
        raise UserError(f"method.{name}={value}: must divide the width {whole}")
    return value
