"""Arithmetic that gives the same bits on several processors, so that a run made on one is made again on another.

Torch, MKL and oneDNN each take the widest instructions that a processor has, and sum in another order with each.  With
these variables all take AVX2's, MKL in its strict mode of conditional numerical reproducibility.  It has that mode on
Intel's processors alone, `portable`; what it has for all makers', `compatible`, is slower (`bench/portable.py`).
"""

from __future__ import annotations

import os
from typing import Literal

from vltune.engine import processor
from vltune.errors import UserError

VARIABLES = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2,STRICT", "DNNL_MAX_CPU_ISA": "AVX2"}
"""Read by the libraries when they first compute."""
COMPATIBLE = VARIABLES | {"MKL_CBWR": "COMPATIBLE"}
SETTINGS = ("portable", "accelerator", "threads")

_chosen: str | None = None
_before: set[str] = set()


def choose(portable: bool | Literal["auto", "compatible"], accelerator: str, threads: int | None) -> None:
    """For this process, before it computes anything; what the run's earlier ones `used` is forgotten.  accelerator:
    Fabric's name.  threads: of the process.

    auto: portable where that can be.  UserError where something is asked for and cannot be."""
    global _chosen
    import torch

    _chosen = None
    _before.clear()
    if portable is False:
        return
    compatible = portable == "compatible"
    reason = obstacle(accelerator, threads, compatible)
    if reason is None:
        os.environ.update(COMPATIBLE if compatible else VARIABLES)
        if torch.backends.cpu.get_cpu_capability() != "AVX2":
            reason = "this process has computed with other kernels already; begin a new one"
    if reason is None:
        _chosen = "compatible" if compatible else "portable"
    elif portable != "auto":
        raise UserError(f"engine.portable={str(portable).lower()}: {reason}")


def obstacle(accelerator: str, threads: int | None, compatible: bool = False) -> str | None:
    """Why arithmetic cannot be portable here.  compatible: with other makers' processors too."""
    import torch

    if accelerator != "cpu" and (
        accelerator != "auto" or torch.cuda.is_available() or torch.backends.mps.is_available()
    ):
        return "it is that of a processor; set engine.accelerator=cpu"
    if threads != 1:
        return "several threads sum in an order of their own; set engine.threads=1"
    if not ((processor.has("avx2") if compatible else is_intel_with_avx2()) and torch.backends.mkl.is_available()):
        which = "a processor" if compatible else "an Intel processor"
        return f"needs {which} with AVX2, as Linux tells it, and a torch with MKL; leave it out"
    for name, value in (COMPATIBLE if compatible else VARIABLES).items():
        if os.environ.get(name, value) != value:
            return f"the environment says {name}={os.environ[name]}; unset it"
    return None


def is_intel_with_avx2() -> bool:
    return processor.is_intel() and processor.has("avx2")


def used() -> str:
    """`portable`, `compatible`, or the instructions that torch takes by itself; all that the processes of the run took."""
    import torch

    return " and ".join(sorted(_before | {_chosen or torch.backends.cpu.get_cpu_capability()}))


def note(earlier: str) -> None:
    """Adds what the run's earlier processes have `used`."""
    _before.update(earlier.split(" and "))
