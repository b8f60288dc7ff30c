"""Flickr30K and COCO captions in Karpathy's splits: from the raw files to ViLT's columns."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from vltune.data.check.kind import Kind
from vltune.data.fields import choice, field, place, says
from vltune.data.preparation import pipeline
from vltune.data.preparation.entries import Entries
from vltune.data.preparation.raw import Official, Row, Sources, either

SCHEMA = pa.schema(
    {"image": pa.binary(), "caption": pa.list_(pa.string()), "image_id": pa.string(), "split": pa.string()}
)

MAY_BE_EMPTY = ("restval",)  # METER has its images in train


def prepare_f30k(
    raw: Path, out: Path, max_bad: int = 0, progress: bool = True, readers: int | None = None
) -> dict[str, int]:
    """Turn Flickr30K and Karpathy's captions into shards and a manifest; return what there is how much of.

    raw: holds `dataset_flickr30k.json` (or `karpathy/dataset_flickr30k.json`) and the folder `flickr30k-images`.
    out: receives `f30k_caption_karpathy_{train,val,test}-*.arrow` and `manifest.json`.  One row an image with all its
    captions (the entry `raw` of its sentences), in the order of the JSON file; the images' bytes as they were stored.
    Captions without a word are dropped, images without a caption too, and counted: nothing could retrieve them.  An image
    stands once in a split.

    Further arguments, and errors: `preparation.pipeline.prepare`.
    """
    splits = ("train", "val", "test")
    official = _Karpathy(Path(raw), "f30k_caption_karpathy", splits, "dataset_flickr30k.json", ["flickr30k-images"])
    return pipeline.prepare(official, out, max_bad, progress, readers)


def prepare_coco(
    raw: Path, out: Path, max_bad: int = 0, progress: bool = True, readers: int | None = None
) -> dict[str, int]:
    """The same of COCO: `dataset_coco.json` and the folders `train2014` and `val2014`, of which its `filepath` names one.

    out: receives `coco_caption_karpathy_{train,restval,val,test}-*.arrow`; restval are the images of val2014 that are in
    neither val nor test, on which everybody trains.  They may be missing, or be in train as METER has them.
    """
    splits, folders = ("train", "restval", "val", "test"), ["train2014", "val2014"]
    official = _Karpathy(Path(raw), "coco_caption_karpathy", splits, "dataset_coco.json", folders)
    return pipeline.prepare(official, out, max_bad, progress, readers)


def problems(row: Mapping[str, Any], answers: Sequence[str | None]) -> Iterator[str]:
    """What is wrong with a row's columns."""
    yield from ("an empty caption" for caption in row["caption"] if not says(caption))


KIND = Kind(SCHEMA, ("images", "captions"), "caption", problems, may_be_empty=MAY_BE_EMPTY)


class _Karpathy(Official):
    kind = "Karpathy"
    schema = SCHEMA
    names = "images", "captions"
    text_column = "caption"
    may_be_empty = MAY_BE_EMPTY
    unpack = "unpack caption_datasets.zip of https://cs.stanford.edu/people/karpathy/deepimagesent and the images there"

    def __init__(self, raw: Path, stem: str, splits: tuple[str, ...], file: str, folders: list[str]):
        super().__init__(raw, stem, splits)
        self._file, self._folders = either(raw, file, f"karpathy/{file}"), folders
        self._dropped = {f"dropped_{what}": dict.fromkeys(splits, 0) for what in ("captions", "images")}

    def files(self) -> list[Path]:
        return [self._file]

    def folders(self) -> list[Path]:
        return [self.raw / folder for folder in self._folders]

    def collect(self, sources: Sources, entries: Entries) -> None:
        for where, entry in sources.entries(self._file, "images"):
            with sources.bad.entry(where):
                file, split = place(entry, "filename"), choice(entry, "split", tuple(self.splits))
                folder = self._folders[0] if len(self._folders) == 1 else place(entry, "filepath")
                image = f"{folder}/{file}"
                entries.once(split, image, where)
                captions = [field(sentence, "raw", str) for sentence in field(entry, "sentences", list)]
                said = [caption for caption in captions if says(caption)]
                self._dropped["dropped_captions"][split] += len(captions) - len(said)
                if said:
                    entries.add(split, image, [file, said])
                else:
                    self._dropped["dropped_images"][split] += 1

    def row(self, split: str, image: str, found: list[Any]) -> Row:
        [[file, captions]] = found
        return {"image": self.raw / image}, {"caption": captions, "image_id": file, "split": split}

    def dropped(self) -> dict[str, dict[str, int]]:
        """Nothing at all where nothing was: a folder's fingerprint is then what it was before this was counted."""
        return {what: of for what, of in self._dropped.items() if any(of.values())}
