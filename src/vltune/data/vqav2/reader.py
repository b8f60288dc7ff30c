"""VQAv2: from Arrow files to examples."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vltune.data.reader import Reader, list_items, list_lengths
from vltune.data.vqav2.prepare import SCHEMA
from vltune.errors import UserError


class VQAv2(Reader):
    """Questions about images, from `vqav2_*.arrow` files of `prepare` or of ViLT's own `write_vqa.py`.

    splits: for example ["vqav2_train", "vqav2_trainable_val"].  Arguments and examples: `Reader`'s; an example also has
    `answer_labels` and `answer_scores` (lists; empty where no answer is in the vocabulary or none is published),
    `labelled` (whether the split's answers are published), and `id` is the question's.
    """

    schema = SCHEMA
    pattern = "vqav2_*.arrow"
    text_column = "questions"
    name_column = "image_id"
    other_columns = ("answer_labels", "answer_scores", "question_id")
    gives = ("answers",)

    def index(self, tables: list[pa.Table]) -> dict[str, np.ndarray]:
        asked = sum(int(list_lengths(table[self.text_column]).sum()) for table in tables)
        ids = np.concatenate([list_items(table["question_id"]) for table in tables])
        lengths, labels, scores, published = zip(*map(_answers, tables), strict=True)
        labelled = np.repeat(published, [len(each) for each in lengths])
        lengths, labels, scores = map(np.concatenate, (lengths, labels, scores))
        if not asked == len(ids) == len(lengths) or len(labels) != len(scores):
            raise UserError(f"{self.data_dir}: questions, ids, labels and scores of {self.splits} differ in number")
        first = np.cumsum([0, *lengths])
        return {
            "id": ids,
            "first_answer": first,
            "label": labels,
            "score": scores,
            "labelled": labelled.astype(np.uint8),
        }

    def about(self, text: int, seed: int | None) -> dict[str, Any]:
        start, end = self._index["first_answer"][text : text + 2]
        return {
            "id": int(self._index["id"][text]),
            "answer_labels": self._index["label"][start:end].tolist(),
            "answer_scores": self._index["score"][start:end].tolist(),
            "labelled": bool(self._index["labelled"][text]),
        }

    @property
    def answers(self) -> list[str] | None:
        """The answer vocabulary, by label; None where the folder has no manifest."""
        return self._manifest and self._manifest.get("answers")

    @property
    def facts(self) -> dict[str, Any]:
        return {"answers": self.answers} if self.answers else {}


def _answers(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """How many answers each question has, all labels and scores in a row, and whether any are published: where they are,
    a question without an answer of the vocabulary has an empty list."""
    labels, scores = (pc.list_flatten(table[name]) for name in ("answer_labels", "answer_scores"))
    if not len(labels):  # a test split: one empty list an image
        questions = int(list_lengths(table["questions"]).sum())
        return np.zeros(questions, int), np.zeros(0, int), np.zeros(0), False
    return list_lengths(labels), list_items(labels), list_items(scores), True
