"""NLVR2: from Arrow files to examples."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from vltune.data.nlvr2.prepare import ANSWERS, SCHEMA
from vltune.data.reader import Reader, list_items, list_lengths, split_of
from vltune.errors import UserError


class NLVR2Reader(Reader):
    """Statements about pairs of images, from `nlvr2_*.arrow` files of `prepare` or of ViLT's own `write_nlvr2.py`.

    splits: for example ["nlvr2_train"].  Arguments and examples: `Reader`'s; images="shuffled" gives another pair's
    two images.  An example has `image_0` and `image_1` (left and right), `label` (0 False, 1 True), `pair` (str: the
    pair's identifier) and `sentence` (int: equal for the examples of one written sentence).  A sentence was written for
    a set of pairs; the official consistency (`nlvr2/eval/metrics.py`) counts sentences right for all of their pairs.
    """

    schema = SCHEMA
    pattern = "nlvr2_*.arrow"
    text_column = "questions"
    image_columns = ("image_0", "image_1")
    name_column = "identifier"
    other_columns = ("answers",)

    def index(self, tables: list[pa.Table]) -> dict[str, np.ndarray]:
        statements = sum(int(list_lengths(table[self.text_column]).sum()) for table in tables)
        answers = np.concatenate([list_items(table["answers"]) for table in tables])
        if len(answers) != statements or not np.isin(answers, ANSWERS).all():
            raise UserError(f"{self.data_dir}: {self.splits} lack an answer True or False for every statement")
        known: dict[tuple[str, str, str], int] = {}
        splits = map(split_of, self._paths)
        sentences = [
            known.setdefault((split, *each), len(known))
            for split, table in zip(splits, tables, strict=True)
            for each in _written(table)
        ]
        return {"label": (answers == ANSWERS[1]).astype(np.uint8), "sentence": np.array(sentences, np.int32)}

    def about(self, text: int, seed: int | None) -> dict[str, Any]:
        file, row = self._locate(int(self._index["row"][text]))
        return {
            "label": int(self._index["label"][text]),
            "pair": self._tables()[file]["identifier"][row].as_py(),
            "sentence": int(self._index["sentence"][text]),
        }


def _written(table: pa.Table) -> Iterator[tuple[str, str]]:
    """The set of pairs that each statement was written for, and the statement."""
    for batch in table.select(["identifier", "questions"]).to_batches(max_chunksize=1000):
        for pair, statements in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            for statement in statements:
                yield pair.rpartition("-")[0] or pair, statement
