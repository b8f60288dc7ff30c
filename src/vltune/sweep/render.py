"""What a sweep will take and how it stands, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vltune.sweep import status
from vltune.sweep.estimate import GroupEstimate
from vltune.sweep.plan import Plan
from vltune.sweep.status import Standing


def estimates(lines: Iterable[GroupEstimate]) -> Table:
    table = Table("runs of", "all", "to do", "time", "memory", "disk", "estimated from", box=None, pad_edge=False)
    for column in table.columns[1:6]:
        column.justify = "right"
    for line in lines:
        numbers = str(line.runs), str(line.waiting), duration(line.seconds), size(line.memory), size(line.disk)
        table.add_row(line.name, *numbers, line.basis)
    return table


def shown(planned: Plan, found: list[Standing], runs: bool) -> Group:
    """A bar, a line a state, what runs now, and what failed by cause."""
    counted = status.counts(found)
    done = counted["finished"]
    head = Table.grid(padding=(0, 1))
    head.add_row(planned.name, ProgressBar(len(found), done, width=30), f"{done} of {len(found)} finished")
    parts = [head, Text(", ".join(f"{count} {name}" for name, count in counted.items() if count))]
    running = Table("running", "step", "a second", "left", "where", box=None, pad_edge=False)
    for each in found:
        if each.state == "running":
            running.add_row(each.run.label, *progress(each))
    parts += [running] if running.row_count else []
    failed = Table("failed", "cause", "told", box=None, pad_edge=False)
    for each in found:
        if each.state in ("failed", "stale"):
            failed.add_row(each.run.label, each.cause, each.error)
    parts += [failed] if failed.row_count else []
    if failed.row_count:
        parts.append(Text(f"{planned.typed('retry')} starts them again"))
    if runs:
        listed = Table("run", "state", "record", box=None, pad_edge=False)
        for each in found:
            listed.add_row(each.run.label, each.state, each.place or "")
        parts.append(listed)
    return Group(*parts)


def progress(each: Standing) -> tuple[str, str, str, str]:
    """step, rate, time left, and where"""
    says = each.progress
    step = f"{says.get('step') or 0:,} of {says['total']:,}" if says.get("total") else says.get("phase") or ""
    rate = f"{says['rate']:.2f}" if says.get("rate") else ""
    return (
        step,
        rate,
        duration(says.get("left_s")) if says.get("left_s") is not None else "",
        str(says.get("host") or ""),
    )


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
