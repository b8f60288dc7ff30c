"""AdamW and its schedules, as the paper trains: no decay on biases, norms and numbers of no dimension, multiplied rates for
head and fusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import AdamW

from vltune.model import Model
from vltune.settings.engine import Settings

NORMS = (nn.LayerNorm, nn.GroupNorm)


def parameter_groups(
    model: nn.Module, rates: Sequence[tuple[float, Sequence[nn.Parameter]]], weight_decay: float
) -> list[dict]:
    """Trainable parameters by rate and decay, each once, also one that several modules hold.  rates: each with its
    parameters, told apart by identity; the first that names a parameter counts, the last is for all others."""
    rate_of = {id(parameter): rate for rate, members in reversed(rates) for parameter in members}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                undecayed = name == "bias" or parameter.dim() == 0 or isinstance(module, NORMS)
                key = (rate_of.get(id(parameter), rates[-1][0]), 0.0 if undecayed else weight_decay)
                groups.setdefault(key, []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def rates(model: Model, settings: Settings) -> list[tuple[float, list]]:
    """Each with its parameters, as `parameter_groups` takes them."""
    fusion = settings.lr * settings.fusion_lr_multiplier
    return [(settings.rate_of_head, model.head_parameters), (fusion, model.fusion_parameters), (settings.lr, [])]


def adamw(groups: list[dict], betas: tuple[float, float], eps: float) -> AdamW:
    return AdamW(groups, betas=tuple(betas), eps=eps, fused=True)


def schedule(kind: str, warmup: float, steps: int) -> Callable[[int], float]:
    """The factor on the rate at an optimiser step: up over the share `warmup` of all `steps`, then down to 0.

    kind: of the way down, `linear`, or `cosine`, a half wave of it; `constant` stays up."""
    rise = round(warmup * steps)

    def factor(step: int) -> float:
        if step < rise:
            return step / rise
        if kind == "constant":
            return 1.0
        left = max(0.0, (steps - step) / max(1, steps - rise))
        return left if kind == "linear" else (1 - math.cos(math.pi * left)) / 2

    return factor
