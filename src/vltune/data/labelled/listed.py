"""Data sets whose files say which image is of which split and class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vltune.data.fields import field, place, shown, words
from vltune.data.labelled.official import SPLITS, Labelled, display
from vltune.data.labelled.published import Published
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Sources


class Split(Labelled):
    """By CoOp's `split_zhou_*.json`: {"train": [[path below the image folder, label, name], ...], "val", "test"}."""

    def __init__(self, raw: Path, name: str, published: Published):
        super().__init__(raw, name, SPLITS, published)

    def files(self) -> list[Path]:
        return [self.raw / self.listing]

    def collect(self, sources: Sources, entries: Entries) -> None:
        names: dict[int, str] = {}
        [file] = self.files()
        for split in self.splits:
            for where, entry in sources.entries(file, split):
                with sources.bad.entry(f"{where} of {split}"):
                    image, label, name = _listed(entry)
                    if names.setdefault(label, name) != name:
                        raise ValueError(f"label {label} is {shown(name)}, and {shown(names[label])} before")
                    self.add(entries, split, image, label, where)
        sources.bad.check()
        self.name_classes(names)


def _listed(entry: Any) -> tuple[str, int, str]:
    """Path, label and class name."""
    if not isinstance(entry, list) or len(entry) != 3:
        raise ValueError(f"it is {shown(entry)}, expected a list of path, label and class name")
    named = dict(zip(("path", "label", "name"), entry, strict=True))
    return place(named, "path"), field(named, "label", int), display(words(named, "name"))


class Aircraft(Labelled):
    """FGVC's own text files: `variants.txt` holds the classes, `images_variant_{split}.txt` images with theirs."""

    def __init__(self, raw: Path, name: str, published: Published):
        super().__init__(raw, name, SPLITS, published)

    def files(self) -> list[Path]:
        lists = [self.raw / f"images_variant_{split}.txt" for split in self.splits]
        return [self.raw / self.listing, *lists]

    def collect(self, sources: Sources, entries: Entries) -> None:
        variants, *lists = self.files()
        labels = {name: label for label, (_, name) in enumerate(sources.text_lines(variants))}
        for split, file in zip(self.splits, lists, strict=True):
            for where, line in sources.text_lines(file):
                with sources.bad.entry(where):
                    number, _, name = line.partition(" ")
                    if name not in labels:
                        raise ValueError(f"its class is {shown(name)}, none of {self.listing}")
                    image = place({"image": f"{number}.jpg"}, "image")
                    self.add(entries, split, image, labels[name], where)
        self.name_classes({label: display(name) for name, label in labels.items()})
