"""What predictions on captions in Karpathy's splits are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vltune.data.examples import Asked, Examples, Shown


class Matches(Examples):
    """To a caption, by its number, the answer is `image N`; to an image, by its number, `caption N`: numbers among those
    that the splits hold."""

    text_column = "caption"

    def __init__(self, folder: Path, splits: Sequence[str]):
        super().__init__(folder, splits)
        self.rows, self.owner = np.unique(np.searchsorted(self.first, self.texts, "right") - 1, return_inverse=True)

    def asked(self, id: int, prediction: str) -> Asked:
        if not 0 <= id < len(self.texts if (of_caption := prediction.startswith("image ")) else self.rows):
            raise KeyError(id)
        if of_caption:
            return Asked(self.said(f"caption {id}"), {f"image {self.owner[id]}": 1.0})
        own = np.flatnonzero(self.owner == id)
        return Asked(Shown(images=self.images(int(self.rows[id]))), {f"caption {number}": 1.0 for number in own})

    def said(self, prediction: str) -> Shown:
        what, _, number = prediction.partition(" ")
        places = self.rows if what == "image" else self.texts
        if not 0 <= int(number) < len(places):
            raise KeyError(prediction)
        place = int(places[int(number)])
        if what == "image":
            return Shown(prediction, self.images(place))
        row, item = self._of_text(place)
        return Shown(self.text(self.row(row, self.text_column), item))
