"""What two methods answer differently, example by example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vltune.errors import UserError
from vltune.metrics.metric import PERCENT, Metric, declared, primary
from vltune.records import predictions, store
from vltune.records.predictions import PREDICTIONS
from vltune.results.tables.cells import splits
from vltune.stats.outcomes import Scored

if TYPE_CHECKING:
    import pyarrow as pa

    from vltune.results.html.pictures import Pictures
    from vltune.results.html.runs import TableRun
    from vltune.results.tables.build import Table

PER_SIDE = 12
"""Examples of each pair that only the first has right, and that only the second has right."""


class Content(Protocol):
    text: str
    images: tuple[bytes, ...]


class ShownExample(Protocol):
    shown: Content
    answers: dict[str, float]
    """How each answer scores; 0 where it is not named."""


class ShownExamples(Protocol):
    """Raises KeyError or ValueError where a prediction is of something else than this data."""

    def asked(self, id: int, prediction: str) -> ShownExample: ...

    def said(self, prediction: str) -> Content: ...


Look = Callable[[dict, str], ShownExamples]
"""From a record's configuration and `val` or `test` to its examples; raises UserError, which says what is missing."""


@dataclass
class Answers:
    """Predictions of one run and part, in the order of ids.  said: what each code means."""

    ids: np.ndarray
    codes: np.ndarray
    said: list[str]
    scores: np.ndarray

    @property
    def once(self) -> bool:
        """Whether no example stands there twice; of one that does nobody could tell which answer counts."""
        return not (self.ids[1:] == self.ids[:-1]).any()

    def at(self, id: int) -> tuple[str, float] | None:
        place = int(np.searchsorted(self.ids, id))
        if place == len(self.ids) or self.ids[place] != id:
            return None
        return self.said[self.codes[place]], float(self.scores[place])


@dataclass
class Panel:
    """The predictions of an experiment that can be compared, by row and seed."""

    experiment: str
    title: str
    split: str
    threshold: float
    config: dict
    places: bool
    """Whether a score is one over the place of the true match."""
    runs: dict[tuple[int, int], Answers]
    shuffled: set[tuple[int, int]]
    """Of these, controls that saw another example's picture."""


def compare(
    tables: Sequence[Table], of_tables: Sequence[Sequence[TableRun]], look: Look | None, pictures: Pictures
) -> list[list[dict[str, Any]]]:
    """For each table what its page shows of each part: counts of every pair of rows, and examples on which they differ."""
    found = [list(_parts(runs, table.folder)) for table, runs in zip(tables, of_tables, strict=True)]
    left = sum(map(len, found))
    everything, shown = pictures.limit, []
    for parts in found:
        shown.append([])
        for part in parts:
            pictures.limit = pictures.used + (everything - pictures.used) // left  # what one leaves, the next may use
            shown[-1].append(_shown(part, look, pictures))
            left -= 1
    return shown


def _parts(runs: Sequence[TableRun], root: Path) -> Iterator[Panel]:
    by_experiment: dict[str, list[tuple[TableRun, pa.Table]]] = {}
    for run in runs:
        if run.row is not None and (table := _read(run.record, root)) is not None:
            by_experiment.setdefault(store.experiment(run.record), []).append((run, table))
    for experiment, read in by_experiment.items():
        asked = _asked(next((run.record for run, _ in read if declared(run.record)), read[0][0].record))
        for metric in asked:
            title = f"{experiment}: {metric.title or metric.name}" if metric.title or asked[1:] else experiment
            for split in ("test", "val"):  # the official test of VQA has no scores
                if panels := list(_panels(read, metric, split, title)):
                    yield from panels
                    break


def _panels(read: Sequence[tuple[TableRun, pa.Table]], metric: Metric, split: str, title: str) -> Iterator[Panel]:
    """One of the runs of an experiment that were scored on the same; several are told apart by their splits."""
    found: dict[tuple[str, ...], list[tuple[TableRun, Answers]]] = {}
    for run, table in read:
        answers = _answers(table, split, metric)
        if answers and len(answers.ids) and answers.once:
            found.setdefault(splits(run.record, split), []).append((run, answers))
    for of, runs in found.items():
        first = runs[0][0].record
        yield Panel(
            experiment=store.experiment(first),
            title=f"{title} ({', '.join(of) or 'unknown splits'})" if len(found) > 1 else title,
            split=split,
            threshold=metric.right,
            places=metric.within is not None,
            config=first["config"],
            runs={(run.row, run.seed): answers for run, answers in runs},
            shuffled={(run.row, run.seed) for run, _ in runs if _saw(run) == "shuffled"},
        )


def _read(record: dict, root: Path) -> pa.Table | None:
    """The predictions beside a record; None where there are none, or broken ones, which the table names."""
    try:
        return predictions.read((root / record["path"]).with_suffix(PREDICTIONS), record)
    except UserError:
        return None


def _saw(run: TableRun) -> str | None:
    return run.record["config"].get("dataset", {}).get("images")


def _asked(record: dict) -> list[Metric]:
    """What the runs of an experiment were asked: the primary metric, or those that it is the mean of."""
    metrics = declared(record)
    first = primary(metrics.values())
    parts = [metrics[name] for name in first.made_of] or [first] if first else []
    return [metric for metric in parts if metric.by_example and metric.unit == PERCENT]


def _answers(table: pa.Table, split: str, metric: Metric) -> Answers | None:
    """The rows of this metric that have a score; None where they cannot be told."""
    from pyarrow import compute as pc

    if (rows := Scored(table, split, {}).behind(metric)) is None:
        return None
    rows = rows.filter(pc.is_valid(rows["score"])).sort_by("id").combine_chunks()
    said = rows["prediction"].combine_chunks().dictionary_encode()
    return Answers(
        rows["id"].to_numpy(), said.indices.to_numpy(), said.dictionary.to_pylist(), rows["score"].to_numpy()
    )


def _shown(part: Panel, look: Look | None, pictures: Pictures) -> dict[str, Any]:
    ids = np.unique(np.concatenate([answers.ids for answers in part.runs.values()]))
    right = {key: _right(answers, ids, part.threshold) for key, answers in part.runs.items()}
    pairs, chosen = _pairs(right, ids)
    runs = sorted({key for first, second, _ in pairs for key in (first, second)})
    written = _Written(part, [part.runs[key] for key in runs], pictures)
    examples, without = written.examples(chosen, look)
    return {
        "experiment": part.experiment,
        "title": part.title,
        "split": part.split,
        "threshold": part.threshold,
        "places": part.places,
        "runs": [{"row": row, "seed": seed, "shuffled": (row, seed) in part.shuffled} for row, seed in runs],
        "pairs": [{"a": runs.index(a), "b": runs.index(b), "counts": counts} for a, b, counts in pairs],
        "examples": examples,
        "said": written.said,
        "without": without,
    }


def _right(answers: Answers, ids: np.ndarray, threshold: float) -> np.ndarray:
    """(ids,) int8: 1 right, 0 wrong, -1 not predicted."""
    right = np.full(len(ids), -1, np.int8)
    right[np.searchsorted(ids, answers.ids)] = answers.scores > threshold - 1e-3
    return right


def _pairs(right: Mapping[tuple[int, int], np.ndarray], ids: np.ndarray) -> tuple[list[tuple], list[int]]:
    """Every pair of rows at the lowest seed that both have, with its counts; and the ids that are shown.

    Each pair takes its examples in one order that all share, which spreads them over the split: so pairs show the same
    ones where they can, and the page holds fewer pictures."""
    order = np.argsort(ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), kind="stable")
    pairs, chosen = [], set()
    for first, second in combinations(sorted({row for row, _ in right}), 2):
        seeds = {seed for row, seed in right if row == first} & {seed for row, seed in right if row == second}
        if not seeds:
            continue
        a, b = right[first, min(seeds)], right[second, min(seeds)]
        cells = [(a == 1) & (b == 1), (a == 1) & (b == 0), (a == 0) & (b == 1), (a == 0) & (b == 0)]
        pairs.append(((first, min(seeds)), (second, min(seeds)), [int(cell.sum()) for cell in cells]))
        for one_sided in cells[1:3]:
            chosen.update(order[one_sided[order]][:PER_SIDE].tolist())
    places = np.empty(len(ids), int)
    places[order] = np.arange(len(ids))
    return pairs, [int(ids[number]) for number in sorted(chosen, key=lambda number: places[number])]


def _opened(look: Look, part: Panel) -> ShownExamples:
    try:
        return look(part.config, part.split)
    except (LookupError, TypeError, ValueError, OSError) as error:  # a record's configuration may hold anything
        raise UserError(f"the data that the record names cannot be opened ({error})") from None


def _said(data: ShownExamples, prediction: str) -> Content:
    try:
        return data.said(prediction)
    except (LookupError, ValueError):
        raise UserError(f"the data here is not what the runs read: nothing there is {prediction!r}") from None


class _Written:
    """Examples as the page holds them.  said: every answer once; an example names its answers by their places there."""

    def __init__(self, part: Panel, runs: list[Answers], pictures: Pictures):
        self.part, self.runs, self.pictures = part, runs, pictures
        self.said: list[dict[str, Any]] = []
        self._places: dict[str, int] = {}

    def examples(self, ids: Sequence[int], look: Look | None) -> tuple[list[dict[str, Any]], str]:
        """The examples, and why they stand there without what was asked, if they do."""
        given = {id: [answers.at(id) for answers in self.runs] for id in ids}
        try:
            if look is None:
                raise UserError("this page was made without looking at the data")
            data = _opened(look, self.part)
            asked = {id: self._asked(data, id, [one for one in of if one]) for id, of in given.items()}
            return [self._given(id, of, data) | self._held(asked[id], data) for id, of in given.items()], ""
        except UserError as error:
            self.said.clear()
            self._places.clear()
            return [self._given(id, of, None) for id, of in given.items()], str(error)

    def _asked(self, data: ShownExamples, id: int, given: list[tuple[str, float]]) -> ShownExample:
        """UserError where the answers were scored on something else."""
        try:
            asked = data.asked(id, given[0][0])
        except (KeyError, ValueError, IndexError):
            raise UserError(f"the data here is not what the runs read: it has no example {id}") from None
        least = self.part.threshold - 1e-3
        if any((asked.answers.get(prediction, 0.0) > least) != (score > least) for prediction, score in given):
            raise UserError(f"the data here is not what the runs read: example {id} has other answers")
        return asked

    def _given(self, id: int, given: list[tuple[str, float] | None], data: ShownExamples | None) -> dict[str, Any]:
        return {"id": id, "given": [one and [self._place(one[0], data), one[1]] for one in given]}

    def _held(self, asked: ShownExample, data: ShownExamples) -> dict[str, Any]:
        answers = [[self._place(answer, data), score] for answer, score in asked.answers.items()]
        return self._show(asked.shown) | {"answers": answers}

    def _place(self, prediction: str, data: ShownExamples | None) -> int:
        if prediction not in self._places:
            said = {"text": prediction} if data is None else self._show(_said(data, prediction))
            self._places[prediction] = len(self.said)
            self.said.append(said)
        return self._places[prediction]

    def _show(self, shown: Content) -> dict[str, Any]:
        images = [self.pictures.add(content) for content in shown.images]
        return {"text": shown.text} | ({"images": images} if images else {})
