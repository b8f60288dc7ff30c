"""What predictions are about, for people to look at: texts, images and true answers as the Arrow files hold them.

Nothing is decoded, tokenised or written, and only the rows that are asked for are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vltune.data import manifest
from vltune.data.arrow import open_table
from vltune.data.snli_ve.prepare import LABELS
from vltune.errors import UserError


@dataclass(frozen=True)
class Shown:
    """A text, images as they are stored (JPEG, PNG), or both."""

    text: str = ""
    images: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What a model was given, and how each answer to it scores (0 to 1); answers that are not named score 0."""

    shown: Shown
    answers: dict[str, float]


class Examples:
    """The examples of a split.  `asked` takes the id of a prediction; `said` shows what a prediction means."""

    text_column: str
    image_columns: tuple[str, ...] = ("image",)
    other_columns: tuple[str, ...] = ()

    def __init__(self, folder: Path, splits: Sequence[str]):
        columns = [*self.image_columns, self.text_column, *self.other_columns]
        about = manifest.read(folder)
        files = [file for name in splits for file in manifest.find(folder, about, name).files]
        self.table = pa.concat_tables([open_table(file, columns) for file in files], promote_options="permissive")
        texts = pc.fill_null(pc.list_value_length(self.table[self.text_column]), 0)
        self.first = np.cumsum([0, *texts.to_numpy()])

    def asked(self, id: int, prediction: str) -> Asked:
        """KeyError where there is no such example.  prediction: any that was made for it."""
        row, item = self.place(id)
        held = self.row(row, self.text_column, *self.other_columns)
        return Asked(Shown(self.text(held, item), self.images(row)), self.answers(held, item))

    def said(self, prediction: str) -> Shown:
        return Shown(prediction)

    def place(self, id: int) -> tuple[int, int]:
        """The row, and which of its texts."""
        return self._of_text(id)

    def text(self, held: dict, item: int) -> str:
        return held[self.text_column][item]

    def answers(self, held: dict, item: int) -> dict[str, float]:
        """{answer: how it scores}; nothing where the row holds none."""
        return {}

    def row(self, number: int, *columns: str) -> dict:
        return self.table.select(columns).slice(number, 1).to_pylist()[0]

    def images(self, row: int) -> tuple[bytes, ...]:
        return tuple(self.row(row, *self.image_columns).values())

    def _of_text(self, number: int) -> tuple[int, int]:
        if not 0 <= number < self.first[-1]:
            raise KeyError(number)
        row = int(np.searchsorted(self.first, number, "right")) - 1
        return row, number - int(self.first[row])


class Questions(Examples):
    """VQA: an id is a question's own."""

    text_column = "questions"
    other_columns = ("answers", "answer_scores", "question_id")

    def __init__(self, folder: Path, splits: Sequence[str]):
        super().__init__(folder, splits)
        ids = pc.list_flatten(self.table["question_id"]).to_numpy()
        self.order = np.argsort(ids, kind="stable")
        self.ids = ids[self.order]
        if len(twice := self.ids[1:][self.ids[1:] == self.ids[:-1]]):
            of = ", ".join(splits)
            raise UserError(f"{folder}: question {twice[0]} stands twice in {of}: its predictions cannot be told apart")

    def place(self, id: int) -> tuple[int, int]:
        at = int(np.searchsorted(self.ids, id))
        if at == len(self.ids) or self.ids[at] != id:
            raise KeyError(id)
        return self._of_text(int(self.order[at]))

    def answers(self, held: dict, item: int) -> dict[str, float]:
        if not any(held["answers"]):
            return {}
        return dict(zip(held["answers"][item], held["answer_scores"][item], strict=True))


class Statements(Examples):
    """NLVR2: an id counts the statements."""

    text_column = "questions"
    image_columns = ("image_0", "image_1")
    other_columns = ("answers",)

    def answers(self, held: dict, item: int) -> dict[str, float]:
        return {held["answers"][item]: 1.0}


class Hypotheses(Examples):
    """SNLI-VE: an id counts the sentences."""

    text_column = "sentences"
    other_columns = ("labels",)

    def text(self, held: dict, item: int) -> str:
        return held["sentences"][item][1].strip()

    def answers(self, held: dict, item: int) -> dict[str, float]:
        return {LABELS[held["labels"][item]]: 1.0}


class Captions(Examples):
    """Retrieval: to a caption, by its number, the answer is `image N`; to an image, by its number, `caption N`."""

    text_column = "caption"

    def asked(self, id: int, prediction: str) -> Asked:
        if prediction.startswith("image "):
            return Asked(self.said(f"caption {id}"), {f"image {self._of_text(id)[0]}": 1.0})
        if not 0 <= id < len(self.table):
            raise KeyError(id)
        own = range(int(self.first[id]), int(self.first[id + 1]))
        return Asked(Shown(images=self.images(id)), {f"caption {number}": 1.0 for number in own})

    def said(self, prediction: str) -> Shown:
        what, _, number = prediction.partition(" ")
        if what == "image":
            return Shown(prediction, self.images(int(number)))
        row, item = self._of_text(int(number))
        return Shown(self.text(self.row(row, self.text_column), item))


_TASKS = {"vqa": Questions, "nlvr2": Statements, "retrieval": Captions, "snli_ve": Hypotheses}


def open_examples(task: str, folder: Path, splits: Sequence[str]) -> Examples:
    """The examples that runs of `task` scored in these splits of a data folder.

    UserError where the folder does not hold them, and for a task that has no data set."""
    if task not in _TASKS:
        raise UserError(f"task {task!r} has no examples to look at: only {', '.join(_TASKS)} do")
    return _TASKS[task](Path(folder), splits)
