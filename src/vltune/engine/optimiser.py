"""AdamW and its schedule, as the paper trains: no decay on biases and norms, a multiplied rate for the head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import AdamW


def parameter_groups(
    model: nn.Module, head: Sequence[nn.Parameter], lr: float, head_lr: float, weight_decay: float
) -> list[dict]:
    """Trainable parameters by rate and decay; `head` is told apart by identity."""
    in_head = {id(parameter) for parameter in head}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                undecayed = name == "bias" or isinstance(module, nn.LayerNorm)
                key = (head_lr if id(parameter) in in_head else lr, 0.0 if undecayed else weight_decay)
                groups.setdefault(key, []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def adamw(groups: list[dict], betas: tuple[float, float], eps: float) -> AdamW:
    return AdamW(groups, betas=tuple(betas), eps=eps, fused=True)


def linear_schedule(warmup: float, steps: int) -> Callable[[int], float]:
    """The factor on the rate at an optimiser step: up over the share `warmup` of all `steps`, then down to 0."""
    rise = round(warmup * steps)

    def factor(step: int) -> float:
        if step < rise:
            return step / rise
        return max(0.0, (steps - step) / max(1, steps - rise))

    return factor
