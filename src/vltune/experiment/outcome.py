"""What a person reads at the end of a run."""

from __future__ import annotations

from pathlib import Path

from vltune.metrics.vqa import NUMBERED


def scores(record: dict) -> str:
    """One line a person reads at the end of a run."""
    metrics = [
        f"{split} {name} {value:.2f}"
        for split, figures in record["metrics"].items()
        for name, value in (figures or {}).items()
    ]
    if trial := record["config"]["engine"].get("eval_examples"):
        metrics.append(f"a trial on the first {trial} examples of each split")
    costs = record["cost"]
    if costs["method_params"] is not None:
        metrics.append(f"{costs['method_params']:,} method parameters")
    if costs["additional_macs"] is not None:
        metrics.append(f"{costs['additional_macs']:,} additional MACs")
    return f"{record['identity']['method']}: " + ", ".join(metrics)


def missing_scores(record: dict, file: Path) -> str:
    """A line for each split that was predicted and has no score: a judge is not here, or the truth is not published."""
    if absent := [name for name, which in (record.get("judges") or {}).items() if which is None]:
        options = " ".join(f"--folder {name}=DIR" for name in absent)
        return f"\nnot judged by {', '.join(absent)}; vltune judge {file} {options} does that"
    if not record.get("judges") and is_judged(record):
        return "\nnot judged: task.judges names none"
    return "".join(f"\n{line}" for line in unpublished(record, file).values())


def is_judged(record: dict) -> bool:
    """Whether pictures are what it made, which have no truth."""
    return "judges" in record["config"].get("task", {})


def unpublished(record: dict, file: Path) -> dict[str, str]:
    """{split whose truth is not published: a line that says so, and who scores it}"""
    if is_judged(record):
        return {}
    config, metrics = record["config"], record["metrics"]
    then = f"vltune submission {file} writes what the server scores"
    if record.get("submission") == NUMBERED:
        then = "the data knows answers by number alone, which no server scores"
    elif record.get("scores") and not record.get("submission"):
        then = f"its predictions lie beside {file}, in no form of a server's"
    return {
        split: f"{split} has no score: its answers are not published; {then}"
        for split in config["engine"]["evaluate"]
        if metrics[split] is None and config["dataset"][split]
    }
