"""Arithmetic that gives the same bits on every Intel processor with AVX2, so that a run made there is made again anywhere.

Torch, MKL and oneDNN each take the widest instructions that a processor has, and sum in another order with each.  With
these variables all take AVX2's, MKL in its strict mode of conditional numerical reproducibility.  On other makers'
processors MKL has no such kernels: it takes others there, and so do runs.  `bench/portable.py` says what it costs.
"""

from __future__ import annotations

import os
from typing import Literal

from vltune.engine import processor
from vltune.errors import UserError

VARIABLES = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2,STRICT", "DNNL_MAX_CPU_ISA": "AVX2"}
"""Read by the libraries when they first compute."""
SETTINGS = ("portable", "accelerator", "threads")
PORTABLE = "portable"

_chosen = False


def choose(portable: bool | Literal["auto"], accelerator: str, threads: int | None) -> None:
    """For this process, before it computes anything.  accelerator: Fabric's name.  threads: of the process.

    auto: portable where that can be.  UserError where it is asked for and cannot be."""
    global _chosen
    import torch

    _chosen = False
    if portable is False:
        return
    reason = obstacle(accelerator, threads)
    if reason is None:
        os.environ.update(VARIABLES)
        if torch.backends.cpu.get_cpu_capability() != "AVX2":
            reason = "this process has computed with other kernels already; begin a new one"
    if reason and portable is True:
        raise UserError(f"engine.portable=true: {reason}")
    _chosen = reason is None


def obstacle(accelerator: str, threads: int | None) -> str | None:
    """Why arithmetic cannot be portable here."""
    import torch

    if accelerator != "cpu" and (
        accelerator != "auto" or torch.cuda.is_available() or torch.backends.mps.is_available()
    ):
        return "it is that of a processor; set engine.accelerator=cpu"
    if threads != 1:
        return "several threads sum in an order of their own; set engine.threads=1"
    if not (is_intel_with_avx2() and torch.backends.mkl.is_available()):
        return "needs an Intel processor with AVX2, as Linux tells it, and a torch with MKL; leave it out"
    for name, value in VARIABLES.items():
        if os.environ.get(name, value) != value:
            return f"the environment says {name}={os.environ[name]}; unset it"
    return None


def is_intel_with_avx2() -> bool:
    return processor.is_intel() and processor.has("avx2")


def used() -> str:
    """`portable`, or the instructions that torch takes by itself."""
    import torch

    return PORTABLE if _chosen else torch.backends.cpu.get_cpu_capability()
