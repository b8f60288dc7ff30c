"""What made a run's numbers: the code's commit, the packages, the hardware."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

_HERE = Path(__file__).parent
_DECIDES = (":/src", ":/conf", ":/sweeps", ":/run.py")
"""What of a checkout decides a run's numbers; data and weights have fingerprints of their own, packages versions."""


def provenance() -> dict:
    """Commit, versions, hardware, time (UTC).  `precision` and `seconds` are null."""
    checkout = _in_checkout()
    return {
        "commit": _git("rev-parse", "HEAD") if checkout else None,
        "dirty": _dirty() if checkout else None,
        "packages": {"python": platform.python_version()} | _packages(),
        "hardware": hardware(),
        "precision": None,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": None,
    }


def _git(*arguments: str) -> str | None:
    """What git prints about the checkout of this code, None where it fails or is not installed."""
    try:
        done = subprocess.run(["git", "-C", _HERE, *arguments], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _in_checkout() -> bool:
    """Whether git tracks this very file; a virtual environment inside another project's checkout does not count."""
    return _git("ls-files", "--error-unmatch", __file__) is not None


def _dirty() -> bool | None:
    """Whether what decides a run differs from the commit: results, wherever they are written, and notes do not."""
    changes = _git("status", "--porcelain", "--", *_DECIDES)
    return None if changes is None else bool(changes)


def _packages() -> dict[str, str]:
    """Installed versions of what vltune requires and, where they are installed, of what it can use; read from their
    metadata: nothing is imported."""
    versions = {}
    with contextlib.suppress(metadata.PackageNotFoundError):
        versions["vltune"] = metadata.version("vltune")
        needed = [line for line in metadata.requires("vltune") or () if 'extra == "dev"' not in line]
        for name in (re.match(r"[\w.-]+", line).group() for line in needed):
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[name] = metadata.version(name)
    return versions


def hardware() -> dict:
    """Processor, usable cores, memory in bytes, platform, and GPU names if torch is loaded and sees any."""
    torch = sys.modules.get("torch")
    gpus = range(torch.cuda.device_count()) if torch and torch.cuda.is_available() else ()
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "platform": platform.platform(),
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        if model := re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return model.group(1)
    return platform.processor() or platform.machine()
