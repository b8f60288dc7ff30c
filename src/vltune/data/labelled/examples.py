"""What predictions on labelled images are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vltune.data import manifest
from vltune.data.examples import Asked, Examples, Shown
from vltune.data.labelled.shots import apart


class Classes(Examples):
    """An id counts the images; an answer is a class name."""

    text_column = None
    other_columns = ("label",)

    def __init__(self, folder: Path, splits: Sequence[str]):
        super().__init__(folder, splits)
        self.classes = apart((manifest.read(folder) or {}).get("classes", []))

    def asked(self, id: int, prediction: str) -> Asked:
        row, _ = self.place(id)
        return Asked(Shown(images=self.images(row)), {self.classes[self.row(row, "label")["label"]]: 1.0})
