"""Flickr30K and COCO captions in Karpathy's splits: from Arrow files to examples."""

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vltune.data.karpathy.prepare import SCHEMA
from vltune.data.reader import Reader
from vltune.data.tokenizer import BytePairTokenizer, Tokenizer
from vltune.data.transforms import Transform
from vltune.errors import UserError


class Karpathy(Reader):
    """Captions of images, from `*_caption_karpathy_*.arrow` files of ours or of ViLT's own `write_*_karpathy.py`.

    splits: for example ["f30k_caption_karpathy_train"].  Arguments and examples, one a caption: `Reader`'s.  An example
    also has `image_index` (int) and `false_text_ids`: the token ids of `false_captions` captions of other images, drawn
    with repetition by the example's seed, without one by its number (with features: `false_text_features` too).

    To score every image against every caption: `images`, `captions` and `owner`.  All captions of an image are kept;
    ViLT drops those that it repeats.
    """

    schema = SCHEMA
    pattern = "*_caption_karpathy_*.arrow"
    text_column = "caption"
    name_column = "image_id"
    gives = ("tokenizer",)

    def __init__(
        self,
        data_dir: Path,
        splits: Sequence[str],
        tokenizer: Tokenizer | BytePairTokenizer,
        transform: Transform,
        images: Literal["true", "shuffled"] = "true",
        seed: int = 0,
        image_cache_bytes: int = 2**27,
        fraction: float = 1.0,
        fraction_seed: int = 0,
        false_captions: int = 15,
    ):
        more = images, seed, image_cache_bytes, fraction, fraction_seed
        super().__init__(data_dir, splits, tokenizer, transform, *more)
        self._refuse_bare()
        if self._index["row"][self._texts[0]] == self._index["row"][self._texts[-1]]:
            raise UserError(f"{self.data_dir}: {self.splits} have captions of fewer than two images")
        self.false_captions = false_captions

    @property
    def facts(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer}

    def about(self, text: int, seed: int | None) -> dict[str, Any]:
        row = int(self._index["row"][text])
        first, end = (bisect_left(self._texts, int(edge)) for edge in self._index["first_text"][row : row + 2])
        generator = np.random.default_rng(text if seed is None else seed)
        drawn = generator.integers(len(self) - (end - first), size=self.false_captions)
        others = np.where(drawn < first, drawn, drawn + end - first)
        false = [self.said(int(self._texts[number])) for number in others]
        keys = false[0] if false else ("text_ids",)
        return {"image_index": row} | {f"false_{key}": [said[key] for said in false] for key in keys}

    def _refuse_bare(self) -> None:
        """UserError that names an image without a caption: recall would count it as missed."""
        rows = np.asarray(self._rows)
        captions = np.diff(self._index["first_text"])[rows]
        if len(bare := rows[captions == 0]):
            file, row = self._locate(int(bare[0]))
            raise UserError(
                f"{self._paths[file]} row {row}: no caption, {len(bare)} of {len(rows)} images have none: they cannot be "
                "retrieved; make the file again without them, as `vltune prepare` does"
            )

    @property
    def images(self) -> "CaptionedImages":
        return CaptionedImages(self)

    @property
    def captions(self) -> "SingleCaptions":
        return SingleCaptions(self)

    @property
    def owner(self) -> np.ndarray:
        """(captions,) int64: the number of each caption's image."""
        return np.searchsorted(self._rows, self._index["row"][self._texts])


class CaptionedImages(torch.utils.data.Dataset):
    """Each image of a reader once: `{"id": its number, "image": ...}`, or `image_features`, or `{"bad": message}`."""

    def __init__(self, reader: Karpathy):
        self.reader = reader

    @property
    def example_bytes(self) -> int:
        return self.reader.example_bytes

    def __len__(self) -> int:
        return self.reader.pictures()

    def __getitem__(self, number: int) -> dict[str, Any]:
        seen = self.reader.seen(number, seed=None)
        return seen if "bad" in seen else {"id": number} | seen


class SingleCaptions(torch.utils.data.Dataset):
    """Each caption of a reader: `{"id": its number, "text_ids": ...}`, with `text_features` where there are some."""

    def __init__(self, reader: Karpathy):
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"id": number} | self.reader.said(int(self.reader._texts[number]))
