"""What autocast multiplies, cast once for all layers that read it."""

from __future__ import annotations

import torch
from torch import Tensor


def lowered(*inputs: Tensor) -> list[Tensor]:
    """Each in the type in which its products are computed, itself where that is its own; what is given twice once."""
    kind = inputs[0].device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return [*inputs]
    dtype, each = torch.get_autocast_dtype(kind), {id(x): x for x in inputs}
    cast = {key: x.to(dtype) for key, x in each.items()}
    return [cast[id(x)] for x in inputs]
