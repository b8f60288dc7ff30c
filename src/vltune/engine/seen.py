"""What the processes of a run saw beside its result: kept in its checkpoint, so that the record of a resumed run tells what
all of them saw."""

from __future__ import annotations

from typing import Any

from vltune.costs import usage
from vltune.engine import kernels
from vltune.engine.session import Session
from vltune.nn import attend


def by_all(session: Session, before: dict[str, Any]) -> dict[str, Any]:
    """With what earlier processes saw, which `before` holds; all processes of now call this together.

    bad: descriptions of examples that could not be read.  attention: as `attend.used`.  kernels: as `kernels.used`.
    peak_memory: {kind of device: bytes}."""
    kind, peaks = session.fabric.device.type, before.get("peak_memory", {})
    here = usage.peak_memory_bytes(session.fabric.device)
    return {
        "bad": session.bad.of_all(session.fabric),
        "attention": attend.used(),
        "kernels": kernels.used(),
        "peak_memory": peaks | {kind: max(here, peaks.get(kind, 0))},
    }


def restore(session: Session, before: dict[str, Any]) -> None:
    """Has this process go on from it."""
    session.bad.seen |= dict.fromkeys(before.get("bad", ()))
    attend.note(before.get("attention", {}))
    kernels.note(before.get("kernels", kernels.used()))
