"""From Arrow files to examples: what every reader shares."""

import json
import mmap
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from tqdm import tqdm

from vltune.data import manifest
from vltune.data.arrow import open_mapped
from vltune.data.index import open_index
from vltune.data.manifest import MANIFEST
from vltune.data.shards import UNREADABLE
from vltune.data.tokenizer import BytePairTokenizer, Tokenizer
from vltune.data.transforms import Transform
from vltune.errors import BadExampleError, UserError

RESIDENT_BYTES = 2**26  # of stored images, at most, that count as memory of a process; the system's cache keeps more


class Features(Protocol):
    """Stored outputs of towers, for one reader; None where there is none and pixels or token ids are needed."""

    def image(self, picture: int, which: int) -> torch.Tensor | None:
        """(N, width), of the image whose bytes are `content(picture, which)`."""

    def text(self, ids: Sequence[int]) -> torch.Tensor | None:
        """(T, width), of a text with these T token ids."""


class Reader(torch.utils.data.Dataset):
    """Texts about pictures: a row of an Arrow file holds one picture (a few images) and a list of texts.

    data_dir: folder of the files.  splits: names of splits, read one after the other: the shards that the manifest lists
    under that name, or `{split}.arrow`.
    images: "shuffled" gives every picture's texts another picture, by a fixed derangement that follows from `seed`: a
    control that can only use the text.
    image_cache_bytes: transformed images kept in memory, in each process that reads.
    features: set it to have stored features in the place of pixels, and beside token ids.

    `dataset[i]`, or `dataset[i, seed]` with the seed of the augmentation, is a dict of text i: `id` (int), `text_ids`
    (list), each of `image_columns` (uint8 (3, h, w)), and what `about` adds.  With features, `text_features` (T, width)
    beside the ids, and `{column}_features` (N, width) instead of an image.
    Where an image cannot be decoded it is `{"bad": message}`.

    Files are memory-mapped and opened anew in each process.  What needs a pass over them, token ids among it, is an index
    that is computed when files are first opened and kept in `.index/` beside them.  UserError where a file is missing or
    something else.
    """

    schema: ClassVar[pa.Schema]  # of the data set's files
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
        image_cache_bytes: int = 2**27,
    ):
        if images not in ("true", "shuffled"):
            raise UserError(f"images={images!r}: use true or shuffled")
        self.data_dir, self.splits = Path(data_dir), list(splits)
        self.tokenizer, self.transform = tokenizer, transform
        self.image_cache_bytes = image_cache_bytes
        self.features: Features | None = None
        self._paths, listed = self._files()
        self.__dict__ |= self._closed()

        rows = [table.num_rows for table in self._tables()]
        for path, found, expected in zip(self._paths, rows, listed, strict=True):
            if expected not in (None, found):
                raise UserError(f"{path}: {found} rows, {MANIFEST} says {expected}; run `vltune prepare` again")
        self._first_row = np.cumsum([0, *rows])
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        self._index = open_index(self._paths, kind, self._indexed)
        if not len(self):
            raise UserError(f"{self.data_dir}: {self.splits} hold no {self.text_column}; run `vltune prepare` again")
        self._tokens = open_index(self._paths, f"{kind} {tokenizer.fingerprint}", self._tokenised)
        self._picture = _derangement(self.pictures(), seed) if images == "shuffled" else range(self.pictures())

    def __len__(self) -> int:
        return len(self._index["row"])

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        index, seed = index if isinstance(index, tuple) else (index, None)
        seen = self.seen(int(self._index["row"][index]), seed)
        if "bad" in seen:
            return seen
        return {"id": index} | seen | self.said(index) | self.about(index, seed)

    def index(self, tables: list[pa.Table]) -> dict[str, np.ndarray]:
        """The numbers that `about` looks up, computed once.  UserError where the columns do not belong together."""
        return {}

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
            return manifest.fingerprint(self._manifest)
        content = {path.name: path.stat().st_size for path in self.data_dir.glob(self.pattern)}
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def pictures(self) -> int:
        """How many there are; `content` and `Features.image` count them from 0."""
        return int(self._first_row[-1])

    def content(self, picture: int, which: int = 0) -> pa.Buffer:
        """The image as it is stored, memory-mapped.  which: of `image_columns`."""
        file, row = self._locate(picture)
        content = self._tables()[file][self.image_columns[which]][row].as_buffer()
        self._touched += content.size
        if self._touched > RESIDENT_BYTES:
            self._release()
        return content

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
        start, end = self._tokens["first"][index : index + 2]
        return self._tokens["ids"][start:end].tolist()

    @property
    def lengths(self) -> np.ndarray:
        """(texts,) how many tokens each has."""
        return np.diff(self._tokens["first"])

    @property
    def example_bytes(self) -> int:
        """What the pixels of an example take in a batch, for a picture of 640 x 480; 0 where all fit the image cache and
        are decoded once."""
        width, height = self.transform.size(640, 480)
        pixels = 3 * width * height * len(self.image_columns)
        fits = pixels * self.pictures() <= self.image_cache_bytes
        return 0 if fits and self.transform.randaugment is None else 4 * pixels

    def wordings(self, items: pa.Array) -> list[str]:
        """The texts of items of the text column's lists."""
        return items.to_pylist()

    def _indexed(self) -> dict[str, np.ndarray]:
        tables = self._tables()
        per_row = np.concatenate([list_lengths(table[self.text_column]) for table in tables])
        row = np.repeat(np.arange(len(per_row), dtype=np.int32), per_row)
        return {"row": row, "first_text": np.cumsum([0, *per_row])} | self.index(tables)

    def _tokenised(self) -> dict[str, np.ndarray]:
        kind = np.min_scalar_type(self.tokenizer.size)
        ids, lengths = [np.zeros(0, kind)], [np.zeros(1, int)]
        with tqdm(desc=f"tokens of {'+'.join(self.splits)}", total=len(self), unit="text", delay=2) as progress:
            for path, table in zip(self._paths, self._tables(), strict=True):
                for batch in table.select([self.text_column]).to_batches(max_chunksize=1000):
                    texts = self.wordings(pc.list_flatten(batch.column(0)))
                    if None in texts:
                        raise UserError(f"{path}: its column {self.text_column} lacks a text; make the file again")
                    encoded = self.tokenizer.many(texts)
                    lengths.append(np.array([len(each) for each in encoded], int))
                    ids.append(np.fromiter(chain.from_iterable(encoded), kind))
                    progress.update(len(texts))
        return {"ids": np.concatenate(ids), "first": np.cumsum(np.concatenate(lengths))}

    def _pixels(self, picture: int, which: int, seed: int | None) -> torch.Tensor:
        if self.transform.randaugment is None:
            seed = None
        if seed is None and (picture, which) in self._cached:
            return self._cached[picture, which]
        image = self.transform.read(self.content(picture, which), seed)
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
        return manifest.read(self.data_dir)

    def _files(self) -> tuple[list[Path], list[int | None]]:
        """The files of the splits, and how many rows the manifest says that each has."""
        listed = (self._manifest or {}).get("splits", {})
        shards = [
            (self.data_dir / shard["file"], shard["rows"])
            for split in self.splits
            for shard in listed.get(split, [{"file": f"{split}.arrow", "rows": None}])
        ]
        return [path for path, _ in shards], [rows for _, rows in shards]

    def _tables(self) -> list[pa.Table]:
        if self._process != os.getpid():
            columns = [*self.image_columns, self.text_column, *self.other_columns]
            columns += [self.name_column] if self.name_column else []
            types = {column: self.schema.field(column).type for column in columns}
            opened = [open_mapped(path, columns, types) for path in self._paths]
            self._opened, self._mapped = [table for table, _ in opened], [mapped for _, mapped in opened]
            self._process = os.getpid()
            self._release()
        return self._opened

    def _release(self) -> None:
        """Gives back the pages of the files that count as this process's memory; what is read again is mapped again."""
        for mapped in self._mapped:
            mapped.madvise(mmap.MADV_DONTNEED)
        self._touched = 0

    def _closed(self) -> dict[str, Any]:
        """What a process has for itself, before it opens the files."""
        return {"_process": None, "_opened": [], "_mapped": [], "_touched": 0, "_cached": {}, "_cached_bytes": 0}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | self._closed()


def list_items(column: pa.ChunkedArray) -> np.ndarray:
    return pc.list_flatten(column).to_numpy()


def list_lengths(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy()


def _derangement(count: int, seed: int) -> np.ndarray:
    """(count,) a permutation that leaves nothing in its place: one cycle through all, in random order."""
    if count < 2:
        raise UserError(f"images=shuffled needs two images or more; there are {count}")
    cycle = np.random.default_rng(seed).permutation(count)
    derangement = np.empty(count, int)
    derangement[cycle] = np.roll(cycle, 1)
    return derangement
