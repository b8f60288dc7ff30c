"""Where a record's numbers were made, as far as they may depend on it."""

from __future__ import annotations

from collections import Counter

PORTABLE = {"portable": "portable arithmetic", "compatible": "portable arithmetic of any maker's processor"}
"""By what a record calls its kernels."""


def machine(record: dict) -> str:
    """Processor, cores and GPUs, on which times and memory depend; of a run that went on elsewhere all that it ran on."""
    provenance = record["provenance"]
    return " after ".join(map(_kind, (provenance["hardware"], *(provenance.get("earlier_hardware") or ()))))


def arithmetic(record: dict) -> str:
    """What rounded its scores: the machine, but where its kernels round alike on several (`engine.portable`)."""
    return PORTABLE.get(record["provenance"].get("kernels")) or machine(record)


def _kind(hardware: dict) -> str:
    gpus = Counter(hardware.get("gpus") or ())
    cores = f"{hardware['cores']} cores" if hardware.get("cores") else None
    return ", ".join(filter(None, [hardware.get("cpu"), cores, *(f"{gpus[name]} x {name}" for name in sorted(gpus))]))
