"""What predictions on VQAv2 are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from vltune.data.examples import Examples
from vltune.errors import UserError


class Questions(Examples):
    """An id is a question's own."""

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
