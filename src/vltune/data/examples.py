"""What predictions are about, for people to look at: texts, images and true answers as the Arrow files hold them.

Nothing is decoded, tokenised or written, and only the rows that are asked for are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vltune.data import manifest
from vltune.data.arrow import open_table


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

    text_column: str | None  # None: rows hold no texts, and each counts as one
    image_columns: tuple[str, ...] = ("image",)
    other_columns: tuple[str, ...] = ()

    def __init__(self, folder: Path, splits: Sequence[str]):
        columns = [*self.image_columns, *self.other_columns]
        columns += [self.text_column] if self.text_column else []
        about = manifest.read(folder)
        found = [manifest.find(folder, about, name) for name in splits]
        tables = [[open_table(file, columns) for file in split.files] for split in found]
        self.table = pa.concat_tables(chain.from_iterable(tables), promote_options="permissive")
        texts = np.ones(len(self.table), int)
        if self.text_column:
            texts = pc.fill_null(pc.list_value_length(self.table[self.text_column]), 0).to_numpy()
        self.first = np.cumsum([0, *texts])
        starts = self.first[np.cumsum([0, *(sum(map(len, of)) for of in tables)])]
        self.texts = np.concatenate(
            [  # the places of those that the splits hold, a subset's alone
                np.arange(start, end) if split.texts is None else start + np.array(split.texts, int)
                for split, start, end in zip(found, starts, starts[1:], strict=False)
            ]
        )

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
