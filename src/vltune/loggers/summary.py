"""What a logging service shows of a record: the same names for every method, task and backbone."""

from __future__ import annotations

from typing import Any

from vltune.records.record import flatten


def figures(record: dict) -> dict[str, float]:
    """Scores and costs that were measured: `val/vqa_score`, `cost/method_params`, `cost/latency_ms_median`, ...

    Units: percent for scores; for costs those of the record; `run/seconds` is the whole run's."""
    found = {
        f"{split}/{name}": value
        for split, scores in record["metrics"].items()
        for name, value in (scores or {}).items()
    }
    costs = flatten(record["cost"]).items()
    found |= {f"cost/{name.replace('.', '_')}": number for name, number in costs if number is not None}
    if record["provenance"]["seconds"] is not None:
        found["run/seconds"] = record["provenance"]["seconds"]
    return found


def outcome(record: dict) -> dict[str, Any]:
    """How the run ended, and the last line of what it failed with."""
    error = (record["error"] or "").strip().splitlines()
    return {"run/status": record["status"]} | ({"run/error": error[-1]} if error else {})


def last_step(record: dict) -> int:
    """Of the learning curves, optimiser steps; 0 where there are none."""
    return max((point["step"] for point in record.get("history", ())), default=0)


def settings(record: dict) -> dict[str, Any]:
    """What runs are filtered and grouped by: the configuration, which run it is, and what made it."""
    made_by = ("started", "commit", "dirty", "precision", "packages", "hardware")
    provenance = {key: record["provenance"].get(key) for key in made_by}
    return {**record["config"], "identity": record["identity"], "provenance": provenance}


def name(identity: dict) -> str:
    return "{method}-{backbone}-{task}-{dataset}-seed{seed}".format(**identity)


def tags(record: dict) -> list[str]:
    """method, backbone, task and data set, and `trial` where only the first examples of a split were scored."""
    found = [record["identity"][key] for key in ("method", "backbone", "task", "dataset")]
    return [*found, "trial"] if record["config"].get("engine", {}).get("eval_examples") else found
