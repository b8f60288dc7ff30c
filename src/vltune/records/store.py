"""The folder of records: `root/records/` (one file per run) and `root/costs/` (`mode=cost`)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from vltune.errors import UserError
from vltune.records import folders
from vltune.records.files import check_folder
from vltune.records.folders import OnBroken, Verified
from vltune.runs import identity
from vltune.settings import config

_log = logging.getLogger(__name__)


def load(root: Path, on_broken: OnBroken = _log.warning, verified: Verified = lambda record: True) -> list[dict]:
    """Every valid record under `root`, in the order of kind, backbone, task, dataset, method, hash and seed.

    Each gets `path`, its file relative to `root`, and `trouble`, what is wrong with the predictions beside it.  To
    `on_broken` goes a broken file, one that lies where its identity does not belong (a copy would count one seed twice),
    one whose predictions give other scores, and every `trouble`.  verified: of which records the predictions are looked
    at.  Raises UserError if `root` is not a folder."""
    root = Path(root)
    check_folder(root, "give the right folder of results")
    records, told = [], set()
    for run in folders.runs(root, folders.of_results(root, on_broken) or (), on_broken, verified):
        if run.file != (home := root / run.home):
            on_broken(UserError(f"{run.file}: field 'identity' belongs to {home}: move or delete this file"))
            continue
        if run.trouble and run.trouble not in told:  # a pack's is that of all its runs
            told.add(run.trouble)
            on_broken(UserError(run.trouble))
        records.append(run.record | {"path": run.home.as_posix(), "trouble": run.trouble})
    return sorted(records, key=_order)


def experiment(record: dict) -> str:
    """`<task>-<dataset>` of a record, and `-<share>%` where it was trained on a share of the data."""
    share = record["config"].get("dataset", {}).get("train_fraction", 1.0)
    name = f"{record['identity']['task']}-{record['identity']['dataset']}"
    return name if share == 1.0 else f"{name}-{100 * share:g}%"


def decisive(record: dict, group: str) -> Any:
    """A group of its configuration, less what decides no run: how a method is presented, and settings at the value that all
    runs had before there were such."""
    settings = record["config"].get(group)
    return identity.decisive(group, settings) if isinstance(settings, dict) else settings


def before(group: str) -> dict[str, Any]:
    """The settings of a group that are younger than others, at the values that every run had until then."""
    return config.before(group) if group in config.GROUPS else {}


def settings(record: dict) -> dict:
    """{group: its decisive settings} of a record's configuration."""
    return identity.settings(record["config"])


def is_cost(record: dict) -> bool:
    """Whether a loaded record comes from `mode=cost`."""
    return record["path"].startswith("costs/")


def _order(record: dict) -> tuple:
    return is_cost(record), *(
        record["identity"][key] for key in ("backbone", "task", "dataset", "method", "hash", "seed")
    )
