"""From the predictions beside a record to what an official server scores, and the official files of a data set."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from vltune import signatures, streamed
from vltune.errors import UserError
from vltune.metrics.vqa import NUMBERED
from vltune.records import files, predictions
from vltune.records.predictions import PREDICTIONS
from vltune.records.record import read, save
from vltune.records.verified import check

FORM = "answers"
"""What a record calls `submission` whose predictions are answers to questions, by the question's number."""
SERVER = "https://eval.ai/web/challenges/challenge-page/830"


def answers(file: Path, split: str) -> dict[int, str]:
    """{question id: answer} that the run of the record `file` predicted for `val` or `test`.

    Raises UserError where the record is not of a finished run on questions, or its predictions are not beside it, broken,
    of other scores than the record's, without this split or with a question twice."""
    from pyarrow import compute

    record, beside = read(file, instead=files.NAMED), file.with_suffix(PREDICTIONS)
    if record.get("submission") == NUMBERED:
        raise UserError(
            f"{file}: its data knows answers by number alone, which no server does: run it on what `vltune prepare` "
            "makes of the official files"
        )
    if record.get("submission") != FORM:
        raise UserError(f"{file}: a record of {record['identity']['task']}, which answers no questions")
    if record["status"] != "finished":
        raise UserError(f"{file}: the run is {record['status']}: only a finished one has predictions")
    if not predictions.are_there(beside, record):
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


def entries(file: Path, key: str, take: Callable[[Any], Any], id_of: Callable[[Any], Any]) -> Iterator[Any]:
    """What `take` makes of each item of the list under `key` of an official file, which is read as a stream: in bounded
    memory, whatever its size.  id_of: of what it makes, what no two may share.

    Raises UserError that names the file, and what it is instead, where it is not JSON or has no such list; and the item of
    which `take` raises KeyError, TypeError or ValueError, or whose id another had before."""
    number, seen, head = 0, set(), b""
    try:
        with Path(file).open("rb") as opened:
            head = opened.peek(signatures.HEAD)[: signatures.HEAD]
            for entry in streamed.items(opened, key):
                number += 1
                taken = take(entry)
                if (id := id_of(taken)) in seen:
                    raise ValueError(f"{id} stands there twice")
                seen.add(id)
                yield taken
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except streamed.NoListError as error:
        raise UserError(f"{file}: holds no {key} ({error}): give the official file of them") from None
    except streamed.BrokenJSONError as error:
        if not head.removeprefix(BOM_UTF8).lstrip().startswith(b"{"):
            found = signatures.identify(head)
            raise UserError(f"{file}: {found.name}, no JSON of {key}: {found.fix or 'fetch it again'}") from None
        raise UserError(f"{file}: broken JSON after {number} of its {key} ({error}): fetch it again") from None
    except (KeyError, TypeError, ValueError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{file}: number {number} of its {key} is not as published ({lacks}): fetch it again") from None
    if not number:
        raise UserError(f"{file}: holds no {key}: give the official file of them")


def _some(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:3]))
