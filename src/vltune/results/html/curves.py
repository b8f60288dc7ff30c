"""Learning curves: what the records' `history` holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from vltune.records import store

if TYPE_CHECKING:
    from vltune.results.html.runs import TableRun

POINTS = 250
"""Of a curve, at most: longer ones are thinned to the means of as many stretches."""


def of(runs: Sequence[TableRun]) -> dict[str, Any]:
    """{experiment: {steps: [steps, ...], metrics: {name: [{row, seed, steps: which, values}]}}}, finished runs alone."""
    experiments: dict[str, dict] = {}
    for run in runs:
        if run.row is None or not run.record.get("history"):
            continue
        experiment = experiments.setdefault(store.experiment(run.record), {"steps": [], "metrics": defaultdict(list)})
        for name, points in sorted(_curves(run.record["history"]).items()):
            steps, values = _thinned(points)
            if steps not in experiment["steps"]:
                experiment["steps"].append(steps)
            curve = {"row": run.row, "seed": run.seed, "steps": experiment["steps"].index(steps), "values": values}
            experiment["metrics"][name].append(curve)
    return experiments


def _curves(history: list[dict]) -> dict[str, list[tuple[int, float]]]:
    found = defaultdict(list)
    for entry in history:
        for name, value in entry.items():
            if name != "step" and value is not None:
                found[name].append((entry["step"], value))
    return found


def _thinned(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Steps and values; of a long curve the last step and the mean of each stretch."""
    size = -(-len(points) // POINTS)
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [stretch[-1][0] for stretch in stretches], [fmean(value for _, value in stretch) for stretch in stretches]
