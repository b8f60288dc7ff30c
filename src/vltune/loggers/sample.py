"""A sample of a run's predictions with what they are about: the same examples for every method and seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from hashlib import sha256
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.errors import UserError
from vltune.metrics.metric import Prediction, declared, of_examples
from vltune.records.predictions import are_there, whole

if TYPE_CHECKING:
    from vltune.data.examples import Examples, Shown

Look = Callable[[str], "Examples"]
"""Opens the examples of `val` or `test`; raises UserError where the data is not on this machine."""
ANSWERS = 3  # of the true ones, as many are named


def split_shown(predictions: dict[str, list[dict]]) -> str:
    return "test" if predictions.get("test") else "val"


def table(predictions: Sequence[dict], count: int, look: Callable[[], Examples]) -> tuple[list[str], list[list[Any]]]:
    """Column names and rows; bytes are images as they are stored.  Without the data only what was predicted is there."""
    chosen = sample(predictions, count)
    try:
        examples = look()
        rows = [described(row, examples) for row in chosen]
    except (UserError, LookupError, TypeError, ValueError, OSError):  # a record's configuration may hold anything
        rows = chosen
    order = ("id", "image", "image 2", "text", "prediction", "predicted image", "truth", "true image", "score")
    columns = [name for name in order if any(row.get(name) not in (None, "") for row in rows)]
    return columns, [[row.get(name) for name in columns] for row in rows]


def sample(predictions: Sequence[dict], count: int) -> list[dict]:
    """`count` of them, in their order: chosen by a hash of the id, so that a missing example changes at most one."""
    seen: Counter[int] = Counter()
    ranked = []
    for place, row in enumerate(predictions):
        seen[row["id"]] += 1  # in retrieval an id stands for a caption and for an image
        key = sha256(f"{seen[row['id']]} {row['id']}".encode()).digest()
        ranked.append((key, place))
    return [predictions[place] for place in sorted(place for _, place in nsmallest(count, ranked))]


def described(row: dict, examples: Examples) -> dict[str, Any]:
    asked, said = examples.asked(row["id"], row["prediction"]), examples.said(row["prediction"])
    best = sorted(asked.answers.items(), key=lambda answer: -answer[1])[:ANSWERS]
    truth = [examples.said(answer) for answer, _ in best]
    named = [
        shown.text if score == 1 else f"{shown.text} ({score:g})" for shown, (_, score) in zip(truth, best, strict=True)
    ]
    return {
        "id": row["id"],
        "image": image(asked.shown),
        "image 2": image(asked.shown, 1),
        "text": asked.shown.text,
        "prediction": said.text,
        "predicted image": image(said),
        "truth": ", ".join(named),
        "true image": image(truth[0]) if truth else None,
        "score": row["score"],
    }


def image(shown: Shown, which: int = 0) -> bytes | None:
    return shown.images[which] if which < len(shown.images) else None


def saved(file: Path, record: dict) -> dict[str, list[Prediction]]:
    """The predictions of examples beside a record, by split; none where there are none."""
    if not are_there(file, record):
        return {}
    metrics, found = declared(record).values(), defaultdict(list)
    names = dict.fromkeys(["split", "id", "prediction", "score", *(name for each in metrics for name in each.columns)])
    table = whole(file, record)
    for row in of_examples(metrics, table.select([name for name in names if name in table.column_names]).to_pylist()):
        found[row.pop("split")].append(row)
    return dict(found)
