"""Fabricated records.  They exist in tests alone."""

from functools import cache
from pathlib import Path

from vltune.records import record as records


def fabricate(**fields) -> dict:
    """A valid record of a finished LoRA run.  Fields that name an identity's or a cost's key go there."""
    identity = {"backbone": "vilt_mini", "method": "lora", "task": "vqa", "dataset": "shapes"}
    identity |= {"seed": 0, "hash": "0a1b2c3d"}
    cost = dict.fromkeys(records.COST) | {"method_params": 4096, "task_params": 1280, "additional_macs": 0}
    record = {
        "schema": 1,
        "id": "lora-0a1b2c3d-seed0",
        "status": "finished",
        "config": {"method": {"rank": 4}, "engine": {"lr": 1e-3}},
        "metrics": {"val": None, "test": {"vqa_score": 60.0}},
        "provenance": {
            "commit": None,
            "dirty": None,
            "packages": {"torch": "2.8.0"},
            "hardware": {"cores": 2},
            "precision": "32-true",
            "started": "2025-01-01T00:00:00+00:00",
            "seconds": 30.0,
        },
        "error": None,
    }
    record["scores"] = declared(fields.get("metrics", record["metrics"]))
    for key, value in fields.items():
        (identity if key in identity else cost if key in cost else record)[key] = value
    submission = {"submission": "answers"} if identity["task"] == "vqa" else {}
    return submission | record | {"identity": identity, "cost": cost}


def declared(metrics: dict) -> list[dict]:
    """What the tasks that have these metrics say of them."""
    names = {name for of_split in metrics.values() for name in of_split or ()}
    found = {}
    for task in tasks():
        if names & {metric.name for metric in task}:
            found |= {metric.name: metric.declaration() for metric in task if metric.name not in found}
    return [*found.values()]


@cache
def tasks() -> list:
    """The metrics of each task."""
    from vltune.tasks.nlvr2 import NLVR2
    from vltune.tasks.pretraining import Pretraining
    from vltune.tasks.retrieval import Retrieval
    from vltune.tasks.vqa import VQA

    return [NLVR2.metrics, VQA.metrics, Retrieval(4, folds=2).metrics, Pretraining.metrics]


class Root:
    """A results folder, and a short way to put a record there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def add(self, score: float | None = None, kind: records.Kind = "records", **fields) -> Path:
        if score is not None:
            fields["metrics"] = {"val": None, "test": {"vqa_score": score}}
        return records.write(fabricate(**fields), self.folder, kind)

    def fail(self, error: str | None = "Traceback:\nRuntimeError: boom", status: str = "failed", **fields) -> Path:
        return self.add(status=status, error=error, metrics={"val": None, "test": None}, **fields)
