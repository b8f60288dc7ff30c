"""Where in a checkpoint its state dict is: a training script saves it beside much else, under a name of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vltune.errors import UserError

# Words in the names of what is saved beside a model and holds tensors too.
BESIDE = re.compile(
    r"(adam|amp|arg(ument)?s|callbacks?|cfg|config|criterion|fragments|history|hparams|hyper|loops?|loss(es)?|lr|meters"
    r"|metrics?|optim(izers?)?|opt(ion)?s?|random|rng|sampler|scaler|scaling|sched(ulers?)?|seed|sgd|stats)",
    re.IGNORECASE,
)
ALONE = "save the weights alone, torch.save(model.state_dict(), FILE), and give that"


def state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The only state dict in what a checkpoint holds.  UserError where there is none, or several to choose from."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds {type(content).__name__}, no state dict of tensors; {ALONE}")
    found = list(candidates(content))
    if not found:
        keys = ", ".join(map(str, [*content][:8])) or "none"
        raise UserError(f"{path}: holds no state dict of tensors, its keys are {keys}; {ALONE}")
    if len(found) > 1:
        names = ", ".join(".".join(at) or "the outermost" for at, _ in found)
        place = "".join(f'["{key}"]' for key in found[0][0] or found[1][0])
        raise UserError(
            f"{path}: holds {len(found)} state dicts, {names}, and which is meant cannot be told: save one alone, as in "
            f"torch.save(checkpoint{place}, FILE), and give that"
        )
    return found[0][1]


DEEPEST = 4  # dicts in dicts that are looked into


def candidates(content: Mapping, at: tuple[str, ...] = (), seen: set[int] | None = None) -> Iterator[tuple]:
    """(keys that lead there, {name: tensor}) of all that may be a model's state dict; one under two names is one."""
    seen = set() if seen is None else seen
    seen.add(id(content))
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if any(tensor.dim() and not is_beside(name) for name, tensor in tensors.items()):  # not counters and the like alone
        yield at, tensors
    for name, value in content.items():
        is_inner = isinstance(name, str) and isinstance(value, Mapping) and not is_beside(name)
        if is_inner and id(value) not in seen and len(at) < DEEPEST:
            yield from candidates(value, (*at, name), seen)


def is_beside(name: str) -> bool:
    return any(BESIDE.fullmatch(word) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name))
