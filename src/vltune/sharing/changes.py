"""What an adapter of Hugging Face PEFT's makes of a linear layer, W (out, in) and b (out,)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vltune.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

CHANGED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of a LoRA that change the weights beneath, or what these begin with."""


def changes_weights(start: Any) -> bool:
    """Whether a LoRA's `init_lora_weights` does.  PEFT takes some of them in capitals too."""
    return isinstance(start, str) and start.lower().startswith(CHANGED)


def check_values(file: object, key: str, tensor: Tensor) -> None:
    """UserError where a tensor of an adapter's holds no fractions, as of a quantised one, or no numbers."""
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(f"{file}: {key} holds {kind}: save the adapter in float32, float16 or bfloat16")
    if not tensor.isfinite().all():
        raise UserError(f"{file}: {key} has values that are NaN or infinite")


class TunedLayer(Protocol):
    @property
    def size(self) -> tuple[int | None, int | None]:
        """(out, in) of the layers that it fits; None: any."""

    def __call__(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """W' and b'."""


@dataclass(frozen=True)
class LowRankProduct:
    """LoRA, W + B A; with a magnitude DoRA, m (W + B A) / ||W + B A||, row by row.

    down: A, (r, in).  up: B with its scale, (out, r).  magnitude: m, (out,)."""

    down: Tensor
    up: Tensor
    magnitude: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        return len(self.up), self.down.shape[1]

    def __call__(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        changed = weight + (self.up @ self.down).view_as(weight)
        if self.magnitude is not None:
            changed = (self.magnitude / changed.norm(dim=1)).unsqueeze(1) * changed
        return changed, bias


@dataclass(frozen=True)
class Rescaled:
    """(IA)3: y l, and in the feed-forward W (x l).

    factors: l, (out, 1) or (1, in)."""

    factors: Tensor

    @property
    def size(self) -> tuple[int | None, int | None]:
        out, width = self.factors.shape
        return (out, None) if width == 1 else (None, width)

    def __call__(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        scaled = bias is not None and self.factors.shape[1] == 1
        return weight * self.factors, bias * self.factors.squeeze(1) if scaled else bias
