"""From Arrow files to examples: what every reader shares."""

import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image

from vltune.data.arrow import open_table
from vltune.data.preparing import MANIFEST, UNREADABLE
from vltune.data.tokenizer import BytePairTokenizer, Tokenizer
from vltune.data.transforms import Transform
from vltune.errors import BadExampleError, UserError


class Features(Protocol):
    """Stored outputs of towers, for one reader; None where there is none and pixels or token ids are needed."""

    def image(self, picture: int, which: int) -> torch.Tensor | None:
        """(N, width), of the image whose bytes are `content(picture, which)`."""

    def text(self, ids: Sequence[int]) -> torch.Tensor | None:
        """(T, width), of a text with these T token ids."""


class Reader(torch.utils.data.Dataset):
    """Texts about pictures: a row of an Arrow file holds one picture (a few images) and a list of texts.

    data_dir: folder of the files.  splits: file names without `.arrow`, read one after the other.
    images: "shuffled" gives every picture's texts another picture, by a fixed derangement that follows from `seed`: a
    control that can only use the text.
    image_cache_bytes: transformed images kept in memory, in each process that reads.
    features: set it to have stored features in the place of pixels, and beside token ids.

    `dataset[i]`, or `dataset[i, seed]` with the seed of the augmentation, is a dict of text i: `id` (int), `text_ids`
    (list), each of `image_columns` (uint8 (3, h, w)), and what `about` adds.  With features, `text_features` (T, width)
    beside the ids, and `{column}_features` (N, width) instead of an image.
    Where an image cannot be decoded it is `{"bad": message}`.

    Files are memory-mapped and opened anew in each process.  UserError where one is missing or something else.
    """

    pattern: ClassVar[str]  # of the data set's file names
    text_column: ClassVar[str]
    image_columns: ClassVar[tuple[str, ...]] = ("image",)
    name_column: ClassVar[str | None] = None  # names a row in messages
    other_columns: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        data_dir: Path,
        splits: Sequence[str],
        tokenizer: Tokenizer | BytePairTokenizer,
        transform: Transform,
        images: Literal["true", "shuffled"] = "true",
        seed: int = 0,
        image_cache_bytes: int = 2**30,
    ):
        if images not in ("true", "shuffled"):
            raise UserError(f"images={images!r}: use true or shuffled")
        self.data_dir, self.splits = Path(data_dir), list(splits)
        self.tokenizer, self.transform = tokenizer, transform
        self.image_cache_bytes = image_cache_bytes
        self.features: Features | None = None
        self._paths = [self.data_dir / f"{split}.arrow" for split in splits]
        self._reset()

        tables = self._tables()
        self._first_row = np.cumsum([0, *(table.num_rows for table in tables)])
        per_row = np.concatenate([list_lengths(table[self.text_column]) for table in tables])
        self._row = np.repeat(np.arange(len(per_row)), per_row)
        self._first_text = np.cumsum(per_row) - per_row
        self._picture = _derangement(len(per_row), seed) if images == "shuffled" else np.arange(len(per_row))
        self._ids = np.zeros((len(self), tokenizer.max_length), np.int32)
        self._ids_length = np.zeros(len(self), np.int16)
        self.index(tables)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        index, seed = index if isinstance(index, tuple) else (index, None)
        seen = self.seen(int(self._row[index]), seed)
        if "bad" in seen:
            return seen
        return {"id": index} | seen | self.said(index) | self.about(index, seed)

    def index(self, tables: list[pa.Table]) -> None:
        """Keeps what `about` tells of each text.  UserError where the columns do not belong together."""

    def about(self, index: int, seed: int | None) -> dict[str, Any]:
        """What an example holds besides image and text."""
        return {}

    @property
    def facts(self) -> dict[str, Any]:
        """What a task's head is built from."""
        return {}

    @property
    def fingerprint(self) -> str:
        """A hash of what the folder was made of, the same on every machine; of names and sizes without a manifest."""
        if self._manifest:
            content = {key: value for key, value in self._manifest.items() if key != "version"}
        else:
            content = {path.name: path.stat().st_size for path in self.data_dir.glob(self.pattern)}
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def pictures(self) -> int:
        """How many there are; `content` and `Features.image` count them from 0."""
        return len(self._picture)

    def content(self, picture: int, which: int = 0) -> pa.Buffer:
        """The image as it is stored, memory-mapped.  which: of `image_columns`."""
        file, row = self._locate(picture)
        return self._tables()[file][self.image_columns[which]][row].as_buffer()

    def size(self, picture: int, which: int = 0) -> tuple[int, int]:
        """(height, width) in pixels after the transform, from the image's header: nothing is decoded."""
        try:
            with Image.open(BytesIO(self.content(picture, which))) as image:
                width, height = self.transform.size(*image.size)
        except UNREADABLE as error:
            raise BadExampleError(self._bad(picture, which, error)) from None
        return height, width

    def texts(self) -> Iterator[list[int]]:
        """The token ids of every distinct text, in the order of first occurrence."""
        known = set()
        for index in range(len(self)):
            if (key := tuple(self.token_ids(index))) not in known:
                known.add(key)
                yield list(key)

    def seen(self, row: int, seed: int | None) -> dict[str, Any]:
        """Of what a row's texts are about: pixels, or features where there are some; or `{"bad": message}`."""
        picture, seen = int(self._picture[row]), {}
        for which, column in enumerate(self.image_columns):
            features = None if self.features is None else self.features.image(picture, which)
            if features is not None:
                seen[f"{column}_features"] = features
                continue
            try:
                seen[column] = self._pixels(picture, which, seed)
            except UNREADABLE as error:
                return {"bad": self._bad(picture, which, error)}
        return seen

    def said(self, index: int) -> dict[str, Any]:
        """A text: its token ids, and its features where there are some."""
        ids = self.token_ids(index)
        features = None if self.features is None else self.features.text(ids)
        return {"text_ids": ids} if features is None else {"text_ids": ids, "text_features": features}

    def token_ids(self, index: int) -> list[int]:
        if not (length := self._ids_length[index]):
            ids = self.tokenizer(self.text(index))
            length = self._ids_length[index] = len(ids)
            self._ids[index, :length] = ids
        return self._ids[index, :length].tolist()

    def text(self, index: int) -> str:
        global_row = int(self._row[index])
        file, row = self._locate(global_row)
        return self._wording(self._tables()[file][self.text_column][row][int(index - self._first_text[global_row])])

    def _wording(self, stored: pa.Scalar) -> str:
        """The text of an item of the text column."""
        return stored.as_py()

    def _pixels(self, picture: int, which: int, seed: int | None) -> torch.Tensor:
        if self.transform.randaugment is None:
            seed = None
        if seed is None and (picture, which) in self._cached:
            return self._cached[picture, which]
        image = self.transform(Image.open(BytesIO(self.content(picture, which))).convert("RGB"), seed)
        if seed is None and self._cached_bytes + image.nbytes <= self.image_cache_bytes:
            self._cached[picture, which] = image
            self._cached_bytes += image.nbytes
        return image

    def _bad(self, picture: int, which: int, error: Exception) -> str:
        file, row = self._locate(picture)
        where = f"{self._paths[file]} row {row}"
        if self.name_column:
            where += f" {self.name_column} {self._tables()[file][self.name_column][row]}"
        if len(self.image_columns) > 1:
            where += f" {self.image_columns[which]}"
        return f"{where}: {str(error) or type(error).__name__}"

    def _locate(self, row: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._first_row, row, "right")) - 1
        return file, row - int(self._first_row[file])

    @cached_property
    def _manifest(self) -> dict | None:
        path = self.data_dir / MANIFEST
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}); run `vltune prepare` again") from None

    def _tables(self) -> list[pa.Table]:
        if self._process != os.getpid():
            columns = [*self.image_columns, self.text_column, *self.other_columns]
            columns += [self.name_column] if self.name_column else []
            self._process, self._opened = os.getpid(), [open_table(path, columns) for path in self._paths]
        return self._opened

    def _reset(self) -> None:
        self._process, self._opened = None, []
        self._cached: dict[tuple[int, int], torch.Tensor] = {}
        self._cached_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": None, "_opened": [], "_cached": {}, "_cached_bytes": 0}


def list_items(column: pa.ChunkedArray) -> np.ndarray:
    return pc.list_flatten(column).to_numpy()


def list_lengths(column: pa.ChunkedArray) -> np.ndarray:
    return pc.list_value_length(column).to_numpy()


def _derangement(count: int, seed: int) -> np.ndarray:
    """(count,) a permutation that leaves nothing in its place: one cycle through all, in random order."""
    if count < 2:
        raise UserError(f"images=shuffled needs two images or more; there are {count}")
    cycle = np.random.default_rng(seed).permutation(count)
    derangement = np.empty(count, int)
    derangement[cycle] = np.roll(cycle, 1)
    return derangement
