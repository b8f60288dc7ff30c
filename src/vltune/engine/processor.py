"""What Linux tells of the processor; elsewhere nothing is known of it."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def is_intel() -> bool:
    return "GenuineIntel" in _told()


def has(flag: str) -> bool:
    """Whether it has these instructions, by Linux's name of them."""
    return any(flag in line.split() for line in _told().splitlines() if line.startswith("flags"))


def _told() -> str:
    return CPUINFO.read_text() if CPUINFO.exists() else ""
