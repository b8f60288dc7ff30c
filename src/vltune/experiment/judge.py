"""`vltune judge`: the figures of pictures that a run painted where a judge was not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.assemble.factory import build
from vltune.errors import UserError
from vltune.records import files, predictions
from vltune.records import record as records
from vltune.records.predictions import PREDICTIONS
from vltune.sharing.adapter import check_parts

if TYPE_CHECKING:
    from vltune.judges.wanted import Wanted
    from vltune.records.record import Record


def judge(file: Path, folders: Mapping[str, str]) -> Record:
    """Judges a record's pictures anew by all judges that are there and writes the figures into the record, and beside it.

    folders: of judges, in the place of those in the record, of which one that is not on this machine judges later.
    UserError where a picture is missing, or no judge is there."""
    from vltune.engine import artifacts
    from vltune.evaluators.painted import judge as judged

    record = records.read(file, instead=files.NAMED)
    check_parts(record, file, "task", "engine")
    spec = record["config"]["task"]
    if "judges" not in spec:
        raise UserError(f"{file}: is of task={spec['name']}, which judges no pictures; give a record of task=subject")
    given = {name: dict(each) for name, each in spec["judges"].items() if each is not None}
    for name, folder in folders.items():
        if "folder" not in given.get(name, {}):
            known = ", ".join(other for other, each in given.items() if "folder" in each) or "none"
            raise UserError(f"--folder {name}={folder}: the record asks no such judge; of folders it asks {known}")
        given[name]["folder"] = folder
    for name in given.keys() - folders.keys():
        if (folder := given[name].get("folder")) is not None and not is_here(folder):
            given[name]["folder"] = None
    task = build(spec | {"judges": given}, noun="", prompts=[])  # what was painted stands beside the record
    judges = task.judges_here()
    if not judges:
        raise UserError(f"{file}: no judge is here; name a folder, --folder {next(iter(given), 'dino')}=DIR")
    rows, before = {}, scored(file, record)
    for split in record["config"]["engine"]["evaluate"]:
        folder = file.with_suffix("") / split
        rows[split] = judged(folder, task, wanted(file, record, split), judges)
        for row in rows[split]:
            if row["score"] is None:  # its judge is not here now
                row["score"] = before.get(place(row | {"split": split}))
        record["metrics"][split] = task.figures(rows[split]) or None
    earlier = {name: was for name, was in (record.get("judges") or {}).items() if name not in judges}
    record |= task.declaration()
    record["judges"] |= earlier
    artifacts.write_predictions(file.with_suffix(PREDICTIONS), rows, record, task.columns)
    records.save(file, json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n")
    return record


def is_here(folder: str) -> bool:
    """Whether a folder that a record names, perhaps another machine's, is on this one."""
    try:
        return Path(folder).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # may not be looked at; no path; a ~ of nobody
        return False


def scored(file: Path, record: Record) -> dict[tuple, float | None]:
    """{place of a row: its score} of all that was judged before."""
    beside = file.with_suffix(PREDICTIONS)
    if not predictions.are_there(beside, record):
        return {}
    return {place(row): row["score"] for row in predictions.whole(beside, record).to_pylist()}


def place(row: Mapping[str, Any]) -> tuple:
    return tuple(row[key] for key in ("split", "measure", "about", "id", "seed"))


def wanted(file: Path, record: Record, split: str) -> list[Wanted]:
    """The pictures that a run painted, in its order.  UserError where one is not there, or what it is compared with."""
    from vltune.judges.wanted import Wanted

    beside = file.with_suffix(PREDICTIONS)
    if not predictions.are_there(beside, record):
        raise UserError(f"{beside}: is not there; copy it beside the record, or run its command again")
    found: dict[Wanted, None] = {}
    for row in predictions.whole(beside, record).to_pylist():
        if row["split"] == split:
            each = Wanted(row["id"], row["about"], row["prediction"], row["seed"])
            for name in filter(None, (row["picture"], row.get("beside"))):
                if not (picture := file.with_suffix("") / name).is_file():
                    fix = "copy the folder beside the record, or run its command again"
                    raise UserError(f"{picture}: is not there; {fix}")
            found[each] = None
    return list(found)
