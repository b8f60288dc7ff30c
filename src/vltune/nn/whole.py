"""Where autocast computes in a lower precision, what is compared by its last digits is not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def in_float32(device: torch.device) -> AbstractContextManager:
    """No autocast; a device without memory, on which models are tried, has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
