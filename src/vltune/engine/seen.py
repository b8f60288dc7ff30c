"""What the processes of a run saw beside its result: kept in its checkpoint, so that the record of a resumed run tells what
all of them saw."""

from __future__ import annotations

from typing import Any

from vltune.costs import usage
from vltune.engine import kernels
from vltune.engine.session import Session
from vltune.nn import attend
from vltune.records.provenance import hardware

KIND = ("cpu", "cores", "gpus")
"""What tells a machine from another of which times differ."""


def by_all(session: Session, before: dict[str, Any]) -> dict[str, Any]:
    """With what earlier processes saw, which `before` holds; all processes of now call this together.

    bad: descriptions of examples that could not be read.  attention: as `attend.used`.  kernels: as `kernels.used`.
    hardware: of each kind of machine, this one last.  peak_memory: {kind of device: bytes}."""
    kind, peaks = session.fabric.device.type, before.get("peak_memory", {})
    here = usage.peak_memory_bytes(session.fabric.device)
    return {
        "bad": session.bad.of_all(session.fabric),
        "attention": attend.used(),
        "kernels": kernels.used(),
        "hardware": [*elsewhere(before), hardware()],
        "peak_memory": peaks | {kind: max(here, peaks.get(kind, 0))},
    }


def restore(session: Session, before: dict[str, Any]) -> None:
    """Has this process go on from it."""
    session.bad.seen |= dict.fromkeys(before.get("bad", ()))
    attend.note(before.get("attention", {}))
    kernels.note(before.get("kernels", kernels.used()))


def elsewhere(before: dict[str, Any]) -> list[dict[str, Any]]:
    """The hardware of earlier processes that was of another kind than this one's."""
    return [each for each in before.get("hardware", ()) if not _is_here(each)]


def moved(before: dict[str, Any]) -> bool:
    """Whether the process before this one ran on hardware of another kind."""
    return not all(map(_is_here, before.get("hardware", ())[-1:]))


def _is_here(other: dict[str, Any]) -> bool:
    here = hardware()
    return all(other[key] == here[key] for key in KIND)
