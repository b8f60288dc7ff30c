"""The folder of records: `root/records/` (one file per run) and `root/costs/` (`mode=cost`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from vltune.errors import UserError
from vltune.results.record import Kind, path, read

_log = logging.getLogger(__name__)


def load(root: Path, on_broken: Callable[[UserError], object] = _log.warning) -> list[dict]:
    """Every valid record under `root`, in the order of kind, backbone, task, dataset, method, hash and seed.

    Each gets `path`, its file relative to `root`.  A broken file, or one that lies where its identity does not belong
    (a copy would count one seed twice), goes to `on_broken`.  Raises UserError if `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of results: give the right one with --results-dir")
    records = []
    for kind in get_args(Kind):
        for file in (root / kind).rglob("*.json"):
            try:
                record = read(file)
                if file != (home := path(root, record["identity"], kind)):
                    raise UserError(f"{file}: field 'identity' belongs to {home}: move or delete this file")
            except UserError as error:
                on_broken(error)
            else:
                records.append(record | {"path": file.relative_to(root).as_posix()})
    return sorted(records, key=_order)


def experiment(record: dict) -> str:
    """`<task>-<dataset>` of a record, and `-<share>%` where it was trained on a share of the data."""
    share = record["config"].get("dataset", {}).get("train_fraction", 1.0)
    name = f"{record['identity']['task']}-{record['identity']['dataset']}"
    return name if share == 1.0 else f"{name}-{100 * share:g}%"


def is_cost(record: dict) -> bool:
    """Whether a loaded record comes from `mode=cost`."""
    return record["path"].startswith("costs/")


def _order(record: dict) -> tuple:
    return is_cost(record), *(
        record["identity"][key] for key in ("backbone", "task", "dataset", "method", "hash", "seed")
    )
