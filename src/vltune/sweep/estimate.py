"""What a sweep will take, from the records of runs like its own, or from counted MACs and a measured rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TypeVar

from vltune.assemble.data import data_folder
from vltune.data import manifest
from vltune.records.record import Kind
from vltune.records.walk import json_files
from vltune.sweep.plan import Plan, Run
from vltune.sweep.status import peek

# Forward and backward, in units of a forward pass: what full tuning takes.  A frozen backbone takes less, so the estimate
# is high there.
PASSES = 3
T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """seconds of one run, its memory and the disk it takes in bytes; None where nothing is known.  basis: what of."""

    seconds: float | None = None
    memory: int | None = None
    disk: int | None = None
    basis: str = ""


class Estimator:
    """roots: folders of results, the first that knows a kind of run tells.  rate: MACs a second in training, or None for
    that of finished runs."""

    def __init__(self, roots: Sequence[Path], rate: float | None = None):
        self.roots, self.given_rate = roots, rate
        self.splits: dict[Path, dict] = {}  # of the manifest in each folder of data

    def records(self, kind: Kind) -> Iterator[tuple[Path, dict]]:
        """(the root that it lies under, a record)"""
        files = ((root, file) for root in self.roots for file in json_files(root / kind, lambda told: None))
        return ((root, record) for root, file in files if (record := peek(file)))

    @cached_property
    def finished(self) -> list[tuple[Path, dict]]:
        return [
            (root, record)
            for root, record in self.records("records")
            if record["status"] == "finished" and is_measured(record)
        ]

    @cached_property
    def like(self) -> dict[tuple, list[tuple[Path, dict]]]:
        """{(backbone, task, data set, method or None for any, what its length is told in): finished runs}"""
        found = defaultdict(list)
        for root, record in self.finished:
            who, (unit, _) = record["identity"], length(record["config"])
            for method in (who["method"], None):
                found[who["backbone"], who["task"], who["dataset"], method, unit].append((root, record))
        return found

    @cached_property
    def costs(self) -> dict[tuple[str, str, str], dict]:
        """{(backbone, task, method): what mode=cost counted}; the first record of each."""
        found: dict[tuple[str, str, str], dict] = {}
        for _, record in self.records("costs"):
            who = record["identity"]
            found.setdefault((who["backbone"], who["task"], who["method"]), record["cost"])
        return found

    @cached_property
    def rate(self) -> float | None:
        """MACs a second, the median of finished runs."""
        rates = [
            (root, PASSES * record["cost"]["macs"] * steps * batch_size / seconds)
            for root, record in self.finished
            if is_of_one_process(record)
            and (steps := steps_of(record))
            and (batch_size := record["config"]["engine"].get("batch_size"))
            and (seconds := record["provenance"].get("phases", {}).get("train"))
        ]
        return self.given_rate or (median(of_first(rates)) if rates else None)

    def __call__(self, run: Run, config: dict) -> Estimate:
        key, (unit, _) = (run.backbone, run.task, run.dataset), length(config)
        for method, basis in ((run.method, "records"), (None, "others' records")):
            if records := of_first(self.like.get((*key, method, unit), ())):
                return Estimate(
                    seconds=median(scaled(record, config) for record in records),
                    memory=round(median(record["cost"]["peak_memory_bytes"] or 0 for record in records)) or None,
                    disk=round(median(disk(record["cost"]) for record in records)),
                    basis=basis,
                )
        return self.by_cost(run, config)

    def by_cost(self, run: Run, config: dict) -> Estimate:
        """From `mode=cost` of this backbone, task and method, at the size of the data."""
        cost = self.costs.get((run.backbone, run.task, run.method))
        folder = data_folder(config["dataset"])
        if folder not in self.splits:
            self.splits[folder] = (manifest.read(folder) or {}).get("splits", {})
        examples = training_examples(config, self.splits[folder])
        if cost is None:
            return Estimate(basis="no record, no cost (mode=cost)")
        if self.rate is None or examples is None:
            return Estimate(disk=disk(cost), basis="no data to count" if self.rate else "no rate (--rate)")
        engine = config["engine"]
        passes = engine["max_steps"] * engine["batch_size"] if engine["max_steps"] else engine["epochs"] * examples
        return Estimate(PASSES * cost["macs"] * passes / self.rate, None, disk(cost), "MACs, a rate")


def of_first(found: Sequence[tuple[Path, T]]) -> list[T]:
    """Of what lies under several roots, what lies under the first of them."""
    return [each for root, each in found if root == found[0][0]]


def is_measured(record: dict) -> bool:
    """Whether it tells how long a run of how many steps or epochs took; one from elsewhere need not."""
    return bool(record["cost"]["macs"] and record["provenance"]["seconds"] and length(record["config"])[1])


def is_of_one_process(record: dict) -> bool:
    """Whether its phases are the whole run's: those of one that was resumed are its last process's."""
    phases = record["provenance"].get("phases", {})
    return sum(phases.values()) > 0.99 * (record["provenance"]["seconds"] or 0)


def length(config: dict) -> tuple[str, int | None]:
    """Of training: what it is told in, and how many."""
    engine = config.get("engine", {})
    unit = "max_steps" if engine.get("max_steps") else "epochs"
    return unit, engine.get(unit)


def steps_of(record: dict) -> int | None:
    """That it trained: what was selected of a longer training may be an earlier one."""
    logged = max((point["step"] for point in record.get("history", ())), default=None)
    return record["config"]["engine"].get("max_steps") or logged or (record.get("selected") or {}).get("step")


def scaled(record: dict, config: dict) -> float:
    """Seconds of a finished run, its training scaled where this one has another number of steps, or of epochs of another
    share of the data."""
    total, train = record["provenance"]["seconds"], record["provenance"].get("phases", {}).get("train", 0)
    ours, theirs = (
        count * (share_of(each) if unit == "epochs" else 1)
        for each in (config, record["config"])
        for unit, count in [length(each)]
    )
    return total + train * (ours / theirs - 1)


def disk(cost: dict) -> int:
    """Bytes that stay, and a checkpoint with AdamW's two moments while it runs."""
    tuned = (cost["method_params"] or 0) + (cost["task_params"] or 0)
    return (cost["adapter_bytes"] or 4 * tuned) + 12 * tuned


def share_of(config: dict) -> float:
    """Of the training examples, that a run sees in an epoch."""
    return (config.get("dataset") or {}).get("train_fraction", 1.0)


def training_examples(config: dict, listed: dict) -> int | None:
    """Texts of the training splits, as `listed` in a prepared folder's manifest, that an epoch has."""
    shards = [shard for split in config["dataset"]["train"] for shard in listed.get(split, ())]
    return round(share_of(config) * sum(shard["texts"] for shard in shards)) or None


@dataclass(frozen=True)
class GroupEstimate:
    """Of runs of one backbone, task and data set."""

    name: str
    runs: int
    waiting: int
    seconds: float | None
    memory: int | None
    disk: int | None
    basis: str


def lines(plan: Plan, waiting: Sequence[bool], estimator: Estimator) -> Iterator[GroupEstimate]:
    """waiting: whether each run is still to be done: time and disk are of those."""
    groups: dict[str, list[tuple[Estimate, bool]]] = defaultdict(list)
    for run, config, open_ in zip(plan.runs, plan.configs, waiting, strict=True):
        groups[f"{run.backbone} {run.task} on {run.dataset}"].append((estimator(run, config), open_))
    for name, found in groups.items():
        to_do = [estimate for estimate, open_ in found if open_]
        yield GroupEstimate(
            name,
            len(found),
            len(to_do),
            total(each.seconds for each in to_do),
            max((each.memory for each, _ in found if each.memory), default=None),
            total(each.disk for each in to_do),
            ", ".join(sorted({each.basis for each, _ in found})),
        )


def total(values: Iterable[float | None]) -> float | None:
    """None where one is not known."""
    values = list(values)
    return None if None in values else sum(values)
