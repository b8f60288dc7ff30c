"""mode=eval with another data set: the tuned model of a finished run, scored on data that it was not tuned for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.assemble.data import data_folder, open_data
from vltune.configuration import check_constructors, find
from vltune.errors import UserError
from vltune.experiment.outcome import is_judged
from vltune.experiment.setup import prepare
from vltune.records.record import read_json, save
from vltune.settings.config import RunConfig
from vltune.values import key_of, shown

if TYPE_CHECKING:
    from vltune.engine.source import Data
    from vltune.records.record import Record

UNKNOWN = "its answers are not published, or dataset.{} names nothing"

Score = Callable[[RunConfig, "Data"], dict[str, dict[str, float]]]
"""Of a tuned model on a configuration's data: {split: {metric: figure}}."""


def is_transfer(overrides: Sequence[str]) -> bool:
    return any(override.startswith("dataset=") for override in overrides)


def is_of_data(override: str) -> bool:
    """Whether it says something of the data set, or chooses the task that a data set's own settings may refer to."""
    return override.lstrip("+~").startswith(("dataset=", "dataset.", "task=", "task.layout="))


def beside(file: Path, dataset: str) -> Path:
    """Where the scores on another data set lie."""
    return file.with_suffix("") / f"on-{dataset}.json"


def on_other_data(tuned: RunConfig, composed: dict, file: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The record's configuration with the data set of `composed`, whose images are the record's, true or shuffled, unless
    `overrides` say which.  UserError where its task cannot read that."""
    dataset, task = composed["dataset"], dict(tuned.plain["task"])
    images = tuned.plain["dataset"].get("images", dataset.get("images"))
    if "images" in dataset and not any(key_of(each) == "dataset.images" for each in overrides):
        dataset = dataset | {"images": images}
    reader = composed["task"].get("reader") if "reader" not in dataset else dataset["reader"]
    if reader != task.get("reader"):
        named = shown(f"dataset={dataset['name']}")
        is_named = "reader" in dataset or task.get("protocol") or composed["task"]["name"] == task["name"]
        own = "" if is_named else f"add task={task['name']}, or "
        raise UserError(f"{named}: is not read by {task.get('reader')}, as what {file} was tuned on; {own}name another")
    if task.get("protocol") and not find(task["_target_"]).numbered_by(task):  # a head's rows are of its own protocol
        task["protocol"] = "full"  # every class and every image, and no draw of training images
    if "folds" in task:
        task["folds"] = dataset.get("folds", 1)
    engine = tuned.plain["engine"] | {"eval_examples": None}
    plain = tuned.plain | {"dataset": dataset, "task": task, "engine": engine}
    check_constructors(plain)
    return RunConfig.of(plain)


def check_numbering(tuned: RunConfig, data: Data, file: Path, before: str | None = None) -> None:
    """UserError where a head's rows stand for other answers or classes than this data numbers so, or where what they stand
    for, the data that it was tuned on, is not here.

    before: that data's fingerprint in the record; None where it is not known."""
    for what in find(tuned.task["_target_"]).numbered_by(tuned.task):
        try:
            own = open_data(tuned)
        except UserError as error:
            raise UserError(
                f"{file}: the order of its {what} stands in the data that it was tuned on ({error})"
            ) from None
        check_tuned_on(tuned, own, what, file, before)
        if list(own.facts[what]) != list(data.facts[what]):
            raise UserError(f"{file}: its head was tuned for other {what} than are here, or for these in another order")


def check_tuned_on(tuned: RunConfig, own: Data, what: str, file: Path, before: str | None) -> None:
    """UserError where the folder of the data that a head was tuned on holds another now: its rows may stand for others.

    own: what the folder holds.  before: the fingerprint in the record; None where it is not known."""
    if before is not None and own.fingerprint != before:
        told = f"the order of its {what} stands in the data that it was tuned on"
        raise UserError(
            f"{file}: {told}, and {data_folder(tuned.dataset)} now holds another (its fingerprint differs): "
            "put back what was there"
        )


def fingerprint_of_data(record: Record) -> str | None:
    """Of what a run was tuned on; None where its record does not say."""
    return (record.get("fingerprints") or {}).get("data")


def scored_on_other_data(config: RunConfig, record: dict, file: Path, score: Score, unread: Sequence[str] = ()) -> Path:
    """Prints what is scored, and writes it beside the record, to the file that it returns.  UserError where other weights
    are here than it was tuned on.

    unread: which examples could not be read, once `score` is done."""
    data, fingerprints = prepare(config)
    before = record.get("fingerprints") or {}
    for part in ("weights", "tokenizer"):
        if fingerprints[part] != before.get(part, fingerprints[part]):
            raise UserError(f"{file}: was made with other {part} than are here: give its own")
    of, own = config.dataset["name"], record["identity"]["dataset"]
    if not (figures := score(config, data)):
        return beside(file, of)  # they are the first process's to tell, and to write
    for split, found in figures.items():
        for name, value in found.items():
            print(f"{split} {name}: {value:.2f} on {of}, tuned on {own}")
        if not found and not is_judged(record):
            print(f"{split} has no score on {of}: {UNKNOWN.format(split)}")
    written = {
        "from": record["id"],
        "dataset": config.plain["dataset"],
        "fingerprints": fingerprints,
        "metrics": figures,
    }
    out, before = beside(file, of), {}
    if out.is_file() and (before := read_json(out)) and not is_same_data(before, written):
        data = json.dumps([written["dataset"], fingerprints], sort_keys=True).encode()
        out = beside(file, f"{of}-{sha256(data).hexdigest()[:8]}")
        before = read_json(out) if out.is_file() else {}
    written["metrics"] = before.get("metrics", {}) | figures
    if bad := [*dict.fromkeys([*before.get("bad_examples", ()), *unread])]:
        written["bad_examples"] = bad
    save(out, json.dumps(written, indent=1).encode() + b"\n")
    return out


def is_same_data(before: Any, now: dict) -> bool:
    same = (before.get(part) == json.loads(json.dumps(now[part])) for part in ("dataset", "fingerprints"))
    return isinstance(before, dict) and all(same)
