"""From the predictions beside a record to what an official server scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from vltune.errors import UserError
from vltune.records import predictions
from vltune.records.files import is_there
from vltune.records.predictions import PREDICTIONS
from vltune.records.record import read, save
from vltune.records.verified import check

SERVER = "https://eval.ai/web/challenges/challenge-page/830"


def answers(file: Path, split: str) -> dict[int, str]:
    """{question id: answer} that the run of the record `file` predicted for `val` or `test`.

    Raises UserError where the record is not of a finished run on questions, or its predictions are not beside it, broken,
    of other scores than the record's, without this split or with a question twice."""
    from pyarrow import compute

    record, beside = read(file), file.with_suffix(PREDICTIONS)
    if record["identity"]["task"] != "vqa":
        raise UserError(f"{file}: a record of {record['identity']['task']}: only vqa answers questions")
    if record["status"] != "finished":
        raise UserError(f"{file}: the run is {record['status']}: only a finished one has predictions")
    if not is_there(beside):
        raise UserError(f"{beside}: the predictions of this record are not here: run its command again with force=true")
    check(record, file)
    table = predictions.read(beside, record)
    table = table.filter(compute.equal(table["split"], split))
    ids, texts = table["id"].to_pylist(), table["prediction"].to_pylist()
    if not ids:
        raise UserError(f"{beside}: holds no predictions of {split}: run again with engine.evaluate=[val,test]")
    found = dict(zip(ids, texts, strict=True))
    if len(found) < len(ids):
        twice = [id for id, count in Counter(ids).items() if count > 1]
        raise UserError(
            f"{beside}: answers {len(twice)} questions of {split} twice, such as {_some(twice)}: run again with "
            f"dataset.{split} of files that share none"
        )
    return found


def check_whole(file: Path) -> None:
    """UserError where the run of the record `file` left out examples of the splits that it read."""
    record = read(file)
    if bad := record.get("bad_examples"):
        raise UserError(
            f"{file}: {len(bad)} examples could not be read, such as {bad[0]}: say with --questions which must be answered"
        )
    if limit := record["config"].get("engine", {}).get("eval_examples"):
        raise UserError(
            f"{file}: a trial with engine.eval_examples={limit}: say with --questions which must be answered"
        )


def complete(found: dict[int, str], wanted: Iterable[int], source: Path, part: bool = False) -> dict[int, str]:
    """`found` for the questions `wanted`, in their order.

    Raises UserError, which names `source`, where one was not predicted, and, unless only a part is wanted, where one was
    predicted that is not wanted."""
    wanted = dict.fromkeys(wanted)
    if missing := [id for id in wanted if id not in found]:
        raise UserError(
            f"{source}: {len(missing)} of its {len(wanted)} questions were not predicted, such as {_some(missing)}: "
            "run again on the whole split"
        )
    if not part and (foreign := [id for id in found if id not in wanted]):
        raise UserError(
            f"{source}: lacks {len(foreign)} of the {len(found)} questions that were predicted, such as {_some(foreign)}: "
            "give the file of that split, or --part where it is a part of it (test-dev of test)"
        )
    return {id: found[id] for id in wanted}


def write(file: Path, found: dict[int, str]) -> Path:
    """The server's format: a list of {"question_id": int, "answer": str}."""
    return save(file, json.dumps([{"question_id": id, "answer": found[id]} for id in found]).encode())


def _some(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:3]))
