"""Where in a checkpoint its state dict is: a training script saves it beside much else, under a name of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vltune.errors import UserError
from vltune.weights.forms import plain

# Words in the names of what is saved beside a model and holds tensors too.
BESIDE = re.compile(
    r"(adam|amp|arg(ument)?s|callbacks?|cfg|config|criterion|fragments|history|hparams|hyper|loops?|loss(es)?|lr|meters"
    r"|metrics?|optim(izers?)?|opt(ion)?s?|random|rng|sampler|scaler|scaling|sched(ulers?)?|seed|sgd|stats)",
    re.IGNORECASE,
)
ALONE = "save the weights alone, torch.save(model.state_dict(), FILE), and give that"
Keys = tuple[str | int, ...]  # that lead to a part of a checkpoint


def state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The only state dict in what a checkpoint holds.  UserError where there is none, or several to choose from."""
    if not isinstance(content, Mapping | list | tuple):
        raise UserError(f"{path}: holds {type(content).__name__}, no state dict of tensors; {ALONE}")
    found = list(candidates(content))
    # Single tensors beside a model, weights of classes say, have plain names, those of modules have dots.
    found = [(at, state) for at, state in found if any("." in str(name) for name in state)] or found
    if not found:
        keys = ", ".join(map(plain, [*content][:8])) if isinstance(content, Mapping) else f"{len(content)} in a list"
        raise UserError(f"{path}: holds no state dict of tensors, its keys are {keys or 'none'}; {ALONE}")
    if len(found) > 1:
        names = ", ".join(".".join(map(plain, at)) or "the outermost" for at, _ in found[:4])
        place = "".join(f"[{at}]" if isinstance(at, int) else f'["{plain(at)}"]' for at in found[0][0] or found[1][0])
        raise UserError(
            f"{path}: holds {len(found)} state dicts, {names}, and which is meant cannot be told: save one alone, as in "
            f"torch.save(checkpoint{place}, FILE), and give that"
        )
    return {name: value for name, value in found[0][1].items() if isinstance(value, Tensor)}


DEEPEST = 4  # dicts and lists in such that are looked into


def candidates(content: Any, at: Keys = (), seen: set[int] | None = None) -> Iterator[tuple[Keys, Mapping]]:
    """(keys that lead there, it) of all that may be a model's state dict; one under two names is one."""
    seen = set() if seen is None else seen
    seen.add(id(content))
    if isinstance(content, Mapping):
        if "param_groups" in content:  # an optimiser's
            return
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if any(isinstance(name, str) and tensor.dim() and not is_beside(name) for name, tensor in tensors.items()):
            yield at, content  # not where these are counters and the like alone
    for name, value in content.items() if isinstance(content, Mapping) else enumerate(content):
        is_inner = isinstance(value, Mapping | list | tuple) and not (isinstance(name, str) and is_beside(name))
        if is_inner and id(value) not in seen and len(at) < DEEPEST:
            yield from candidates(value, (*at, name), seen)


def is_beside(name: str) -> bool:
    return any(BESIDE.fullmatch(word) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name))
