"""SNLI-VE: from the official raw files to METER's columns."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from vltune.data.check.kind import Kind
from vltune.data.fields import choice, field, file_name, words
from vltune.data.preparation import pipeline
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Official, Row, Sources, either

LABELS = ("contradiction", "neutral", "entailment")
SCHEMA = pa.schema({"image": pa.binary(), "sentences": pa.list_(pa.list_(pa.string())), "labels": pa.list_(pa.int64())})
_SPLITS = ("train", "dev", "test")
_UNDECIDED = "-"  # the annotators found no majority


def prepare(
    raw: Path, out: Path, max_bad: int = 0, progress: bool = True, readers: int | None = None
) -> dict[str, int]:
    """Turn SNLI-VE's official raw layout into shards and a manifest; return what there is how much of.

    raw: holds `snli_ve_{train,dev,test}.jsonl`, one sentence a line with `Flickr30K_ID`, `sentence1` (the caption that
    stood for the image in SNLI), `sentence2` (the hypothesis) and `gold_label`; and Flickr30K's images as `ID.jpg` in
    `flickr30k-images/`, `flickr30k_images/` or `Flickr30K/images/`.  out: receives `snli_{train,dev,test}-*.arrow` and
    `manifest.json`.  One row an image with all its sentences, in the order of their first occurrence; the images' bytes
    as they were stored.  Sentences whose `gold_label` is "-" are dropped and counted; a `pairID` stands once in a split.

    Further arguments, and errors: `preparation.pipeline.prepare`.
    """
    return pipeline.prepare(_SNLIVE(Path(raw), "snli", _SPLITS), out, max_bad, progress, readers)


def problems(row: Mapping[str, Any], answers: Sequence[str | None]) -> Iterator[str]:
    """What is wrong with a row's columns."""
    if len(row["labels"]) != len(row["sentences"]):
        yield f"{len(row['sentences'])} sentences and {len(row['labels'])} labels"
    yield from (f"label {label} is none of 0, 1, 2" for label in row["labels"] if label not in range(len(LABELS)))
    yield from ("a caption without its hypothesis" for pair in row["sentences"] if len(pair) != 2)


KIND = Kind(SCHEMA, ("images", "sentences"), "sentences", problems)


class _SNLIVE(Official):
    kind = "SNLI-VE"
    schema = SCHEMA
    names = "images", "sentences"
    text_column = "sentences"
    unpack = (
        "unpack the sentences from https://github.com/necla-ml/SNLI-VE and Flickr30K's images into flickr30k-images/"
    )

    def files(self) -> list[Path]:
        self._files = {split: self.raw / f"snli_ve_{split}.jsonl" for split in self.splits}
        self._folder = either(self.raw, "flickr30k-images", "flickr30k_images", "Flickr30K/images")
        return [*self._files.values()]

    def folders(self) -> list[Path]:
        return [self._folder]

    def collect(self, sources: Sources, entries: Entries) -> None:
        self._undecided = dict.fromkeys(self.splits, 0)
        for split, path in self._files.items():
            for where, entry in sources.lines(path):
                with sources.bad.entry(where):
                    label = choice(entry, "gold_label", (*LABELS, _UNDECIDED))
                    if "pairID" in entry:  # of the copies of a line, one is right
                        entries.once(f"{split} pairID", field(entry, "pairID", str), where)
                    if label == _UNDECIDED:
                        self._undecided[split] += 1
                    else:
                        sentences = [field(entry, "sentence1", str), words(entry, "sentence2")]
                        entries.add(
                            split, file_name(entry, "Flickr30K_ID", number=True), [sentences, LABELS.index(label)]
                        )

    def row(self, split: str, image: str, found: list[Any]) -> Row:
        sentences, labels = zip(*found, strict=True)
        return {"image": self._folder / f"{image}.jpg"}, {"sentences": sentences, "labels": labels}

    def dropped(self) -> dict[str, dict[str, int]]:
        return {"dropped_sentences": self._undecided}
