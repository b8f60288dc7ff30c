"""What `engine.precision=auto` means on this machine."""

from __future__ import annotations


def settle(config: dict) -> dict:
    """The same configuration, with the precision that a run has here: it decides the result, so its hash holds it.

    bfloat16 where a GPU computes in it; float32 elsewhere, and where costs are counted, which do not depend on it."""
    engine = config["engine"]
    if engine["precision"] != "auto":
        return config
    precision = "32-true" if config["mode"] == "cost" or not has_bfloat16(engine["accelerator"]) else "bf16-mixed"
    return config | {"engine": engine | {"precision": precision}}


def has_bfloat16(accelerator: str) -> bool:
    if accelerator not in ("auto", "gpu", "cuda"):
        return False
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
