"""Flickr30K and COCO captions in Karpathy's splits: from raw files to ViLT's Arrow files, and from those to examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from vltune.data.preparing import Row, either, official, read_list, require, write_folder
from vltune.data.reading import Reader
from vltune.data.tokenizer import BytePairTokenizer, Tokenizer
from vltune.data.transforms import Transform
from vltune.errors import UserError

SCHEMA = pa.schema(
    {"image": pa.binary(), "caption": pa.list_(pa.string()), "image_id": pa.string(), "split": pa.string()}
)
_UNPACK = "unpack caption_datasets.zip of https://cs.stanford.edu/people/karpathy/deepimagesent and the images there"


def prepare_f30k(raw: Path, out: Path, max_bad: int = 0, progress: bool = True) -> dict[str, int]:
    """Turn Flickr30K and Karpathy's captions into ViLT's Arrow files and a manifest; return what there is how much of.

    raw: holds `dataset_flickr30k.json` (or `karpathy/dataset_flickr30k.json`) and the folder `flickr30k-images`.
    out: receives `f30k_caption_karpathy_{train,val,test}.arrow` and `manifest.json`.  One row an image with all its
    captions (the entry `raw` of its sentences), in the order of the JSON file; the images' bytes as they were stored.

    Raises, leaving `out` as it was: UserError where raw files are missing (all are named) or malformed, BadExampleError
    where more than `max_bad` images are missing or have no readable header.
    """
    splits = ("train", "val", "test")
    return _prepare(raw, out, "f30k", "dataset_flickr30k.json", splits, ["flickr30k-images"], max_bad, progress)


def prepare_coco(raw: Path, out: Path, max_bad: int = 0, progress: bool = True) -> dict[str, int]:
    """The same of COCO: `dataset_coco.json` and the folders `train2014` and `val2014`, of which its `filepath` names one.

    out: receives `coco_caption_karpathy_{train,restval,val,test}.arrow`; restval are the images of val2014 that are in
    neither val nor test, on which everybody trains.
    """
    splits, folders = ("train", "restval", "val", "test"), ["train2014", "val2014"]
    return _prepare(raw, out, "coco", "dataset_coco.json", splits, folders, max_bad, progress)


def _prepare(
    raw: Path,
    out: Path,
    name: str,
    file: str,
    splits: Sequence[str],
    folders: Sequence[str],
    max_bad: int,
    progress: bool,
) -> dict[str, int]:
    raw, out = Path(raw), Path(out)
    path = either(raw, file, f"karpathy/{file}")
    require(raw, [path], [raw / folder for folder in folders], _UNPACK)
    sources: dict[str, str] = {}
    rows: dict[str, list[Row]] = {split: [] for split in splits}
    for number, entry in enumerate(read_list(path, "images", "Karpathy", sources)):
        with official(f"{path} image {number}", "Karpathy"):
            if entry["split"] not in splits:
                raise ValueError(f"split {entry['split']!r} is none of {', '.join(splits)}")
            folder = folders[0] if len(folders) == 1 else entry["filepath"]
            others = {
                "caption": [sentence["raw"] for sentence in entry["sentences"]],
                "image_id": entry["filename"],
                "split": entry["split"],
            }
            rows[entry["split"]].append(({"image": raw / folder / entry["filename"]}, others))
    stem, names = f"{name}_caption_karpathy", ("images", "captions")
    return write_folder(raw, out, SCHEMA, stem, rows, names, "caption", sources, max_bad, progress)


class Karpathy(Reader):
    """Captions of images, from `*_caption_karpathy_*.arrow` files of ours or of ViLT's own `write_*_karpathy.py`.

    splits: for example ["f30k_caption_karpathy_train"].  Arguments and examples, one a caption: `Reader`'s.  An example
    also has `image_index` (int) and `false_text_ids`: the token ids of `false_captions` captions of other images, drawn
    with repetition by the example's seed, without one by its number (with features: `false_text_features` too).

    To score every image against every caption: `images`, `captions` and `owner`.  All captions of an image are kept;
    ViLT drops those that it repeats.
    """

    pattern = "*_caption_karpathy_*.arrow"
    text_column = "caption"
    name_column = "image_id"

    def __init__(
        self,
        data_dir: Path,
        splits: Sequence[str],
        tokenizer: Tokenizer | BytePairTokenizer,
        transform: Transform,
        images: Literal["true", "shuffled"] = "true",
        seed: int = 0,
        image_cache_bytes: int = 2**30,
        false_captions: int = 15,
    ):
        super().__init__(data_dir, splits, tokenizer, transform, images, seed, image_cache_bytes)
        if len(np.unique(self._row)) < 2:
            raise UserError(f"{self.data_dir}: {self.splits} have captions of fewer than two images")
        self.false_captions = false_captions
        self._captions = np.bincount(self._row, minlength=self.pictures())

    def about(self, index: int, seed: int | None) -> dict[str, Any]:
        row = int(self._row[index])
        first, own = int(self._first_text[row]), int(self._captions[row])
        generator = np.random.default_rng(index if seed is None else seed)
        drawn = generator.integers(len(self) - own, size=self.false_captions)
        false = [self.said(int(number)) for number in np.where(drawn < first, drawn, drawn + own)]
        keys = false[0] if false else ("text_ids",)
        return {"image_index": row} | {f"false_{key}": [said[key] for said in false] for key in keys}

    @property
    def images(self) -> "Images":
        return Images(self)

    @property
    def captions(self) -> "Captions":
        return Captions(self)

    @property
    def owner(self) -> np.ndarray:
        """(captions,) int64: the number of each caption's image."""
        return self._row.astype(np.int64)


class Images(torch.utils.data.Dataset):
    """Each image of a reader once: `{"id": its number, "image": ...}`, or `image_features`, or `{"bad": message}`."""

    def __init__(self, reader: Karpathy):
        self.reader = reader

    def __len__(self) -> int:
        return self.reader.pictures()

    def __getitem__(self, number: int) -> dict[str, Any]:
        seen = self.reader.seen(number, seed=None)
        return seen if "bad" in seen else {"id": number} | seen


class Captions(torch.utils.data.Dataset):
    """Each caption of a reader: `{"id": its number, "text_ids": ...}`, with `text_features` where there are some."""

    def __init__(self, reader: Karpathy):
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"id": number} | self.reader.said(number)
