"""What all preparations of labelled images share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vltune.data.fields import shown
from vltune.data.labelled.published import Published
from vltune.data.labelled.rows import SCHEMA
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Official, Row
from vltune.errors import UserError

SPLITS = ("train", "val", "test")


class Labelled(Official):
    """An image is known by its path below `folder`.  `collect` puts each down with `add`, and calls `name_classes`."""

    kind = "image list"
    schema = SCHEMA
    names = ("images",)
    text_column = None

    def __init__(self, raw: Path, name: str, splits: tuple[str, ...], published: Published | None = None):
        super().__init__(published.root_in(raw) if published else raw, name, splits)
        self.folder, self.classes = self.raw, []
        if published:
            self.folder, self.listing, self.unpack = published.images_in(self.raw), published.listing, published.unpack

    def folders(self) -> list[Path]:
        return [self.folder]

    def unread(self) -> Iterator[str]:
        """What was left unread and might be thought read, in lines; asked for after `files`."""
        yield from ()

    def add(self, entries: Entries, split: str, image: str, label: int, where: str) -> None:
        """ValueError where the image stands in the split already."""
        entries.once(split, image, where)
        entries.add(split, image, label)

    def name_classes(self, names: dict[int, str]) -> None:
        """names: by label.  UserError where a label is left out."""
        absent = next((label for label in range(max(len(names), 1)) if label not in names), None)
        if absent is not None:
            raise UserError(f"{self.raw}: no image of label {absent}, of {len(names)} classes; fetch the list again")
        self.classes = [names[label] for label in range(len(names))]

    def row(self, split: str, image: str, found: list[Any]) -> Row:
        return {"image": self.folder / image}, {"label": found[0], "image_id": image, "split": split}

    def facts(self) -> dict[str, Any]:
        return {"data_set": self.stem, "classes": self.classes}


def display(name: str) -> str:
    """A class name as a prompt has it.  ValueError where nothing is left of it."""
    if not (told := " ".join(name.replace("_", " ").split())):
        raise ValueError(f"its class name is {shown(name)}")
    return told
