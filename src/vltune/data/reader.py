"""From Arrow files to examples: what every reader shares."""

import mmap
import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain, combinations
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from tqdm import tqdm

from vltune.data import manifest
from vltune.data.arrow import check_whole, is_list, open_mapped
from vltune.data.index import code_of, open_index
from vltune.data.manifest import MANIFEST
from vltune.data.tokenizer import BytePairTokenizer, Tokenizer
from vltune.data.transforms import Transform
from vltune.errors import BadExampleError, UserError
from vltune.images import UnreadableImageError, opened

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
OF_THE_NEXT = 0x9E3779B97F4A7C15  # odd and large: between the augmentation seeds of two images of an example
RESIDENT_BYTES = 2**26  # of stored images, at most, that count as memory of a process; the system's cache keeps more


class FeatureSource(Protocol):
    """Stored outputs of towers, for one reader; None where there is none and pixels or token ids are needed."""

    def image(self, picture: int, which: int) -> torch.Tensor | None:
        """(N, width), of the image whose bytes are `content(picture, which)`."""

    def text(self, ids: Sequence[int]) -> torch.Tensor | None:
        """(T, width), of a text with these T token ids."""


class Reader(torch.utils.data.Dataset):
    """Texts about pictures: a row of an Arrow file holds one picture (a few images) and a list of texts; or, where there is
    no `text_column`, a picture that is an example by itself.

    data_dir: folder of the files.  splits: names of splits, read one after the other: the shards that the manifest lists
    under that name, or `{split}.arrow`; or of subsets, which the manifest says the texts of.
    images: "shuffled" gives every picture's texts another picture, by a fixed derangement that follows from `seed`: a
    control that can only use the text.
    image_cache_bytes: transformed images kept in memory, in each process that reads.
    fraction: the share of the pictures to read, with all of their texts; which ones follows from `fraction_seed`, and those
    of a smaller share are among those of a larger one.
    features: set it to have stored features in the place of pixels, and beside token ids.

    `dataset[i]`, or `dataset[i, seed]` with the seed of the augmentation, is a dict of the i-th text that is read: `id`
    (int: its place among all texts of the files, the same in one subset as in the whole), `text_ids` (list), each of
    `image_columns` (uint8 (3, h, w)), and what `about` adds.  With features, `text_features` (T, width) beside the ids,
    and `{column}_features` (N, width) instead of an image.
    Where an image cannot be decoded it is `{"bad": message}`.

    Files are memory-mapped and opened anew in each process.  What needs a pass over them, token ids among it, is an index
    that is computed when files are first opened and kept in `.index/` beside them.  UserError where a file is missing or
    something else.
    """

    schema: ClassVar[pa.Schema]  # of the data set's files
    pattern: ClassVar[str]  # of the data set's file names
    text_column: ClassVar[str | None]  # None: rows hold no texts, and each counts as one
    image_columns: ClassVar[tuple[str, ...]] = ("image",)
    name_column: ClassVar[str | None] = None  # names a row in messages
    other_columns: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[tuple[str, ...]] = ()  # the names in `facts`
    whole_folder: bool = True  # whether the fingerprint is of the whole folder, unless a file of one's own says more
    may_be_few: bool = False  # whether fewer examples than a batch are meant to be trained on, all in one

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
    ):
        if images not in ("true", "shuffled"):
            raise UserError(f"images={images!r}: use true or shuffled")
        if isinstance(splits, str):
            raise UserError(f"{splits}: name splits in a list, [{splits}]")
        self.data_dir, self.splits = Path(data_dir), list(splits)
        self.tokenizer, self.transform = tokenizer, transform
        self.image_cache_bytes = image_cache_bytes
        self.features: FeatureSource | None = None
        found = [manifest.find(self.data_dir, self._manifest, split) for split in self.splits]
        self._paths = [path for split in found for path in split.files]
        for one, other in combinations(range(len(found)), 2):
            if found[one].shares(found[other]):
                both = f"{self.splits[one]} and {self.splits[other]}"
                raise UserError(f"{self.data_dir}: {both} share texts, which would be read twice: name one of them")
        self.__dict__ |= self._closed()

        rows = [table.num_rows for table in self._tables()]
        for path, have, said in zip(self._paths, rows, chain.from_iterable(split.rows for split in found), strict=True):
            if said not in (None, have):
                raise UserError(f"{path}: {have} rows, {MANIFEST} says {said}; run `vltune prepare` again")
        self._first_row = np.cumsum([0, *rows])
        kind = f"{type(self).__module__}.{type(self).__qualname__} {code_of(type(self), Reader)}"
        self._index = open_index(self._paths, kind, self._indexed)
        self._texts, self._rows = self._read(found)
        if fraction < 1:
            self._texts, self._rows = self._part(fraction, fraction_seed)
        if not len(self):
            what = self.text_column or "images"
            raise UserError(f"{self.data_dir}: {self.splits} hold no {what}; choose splits that hold some")
        self._texts, self._rows = self.chosen(self._texts, self._rows)
        if self.text_column:
            self._tokens = open_index(self._paths, f"{kind} {tokenizer.fingerprint}", self._tokenised)
        self._picture = _derangement(self.pictures(), seed) if images == "shuffled" else range(self.pictures())

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        index, seed = index if isinstance(index, tuple) else (index, None)
        text = int(self._texts[index])
        seen = self.seen(bisect_left(self._rows, int(self._index["row"][text])), seed)
        if "bad" in seen:
            return seen
        return {"id": text} | seen | self.said(text) | self.about(text, seed)

    def index(self, tables: list[pa.Table]) -> dict[str, np.ndarray]:
        """The numbers that `about` looks up, computed once.  UserError where the columns do not belong together."""
        return {}

    def about(self, text: int, seed: int | None) -> dict[str, Any]:
        """What an example holds besides image and text.  text: its place among all of the files."""
        return {}

    def chosen(self, texts: Sequence[int], rows: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Of the texts to read and the rows that they are in those that are read indeed; both ascending."""
        return texts, rows

    @property
    def facts(self) -> dict[str, Any]:
        """What a task's head is built from."""
        return {}

    @property
    def fingerprint(self) -> str:
        """A hash of what the folder was made of, the same on every machine; of names and sizes without a manifest."""
        if self._manifest:
            return manifest.fingerprint(self._manifest)
        return manifest.fingerprint_of_files(self.data_dir.glob(self.pattern))

    def pictures(self) -> int:
        """How many the texts are about; `content` and `FeatureSource.image` count them from 0."""
        return len(self._rows)

    def content(self, picture: int, which: int = 0) -> pa.Buffer:
        """The image as it is stored, memory-mapped.  which: of `image_columns`."""
        file, row = self._locate(self._rows[picture])
        content = self._tables()[file][self.image_columns[which]][row].as_buffer() or pa.py_buffer(b"")
        self._touched += content.size
        if self._touched > RESIDENT_BYTES:
            self._release()
        return content

    def size(self, picture: int, which: int = 0) -> tuple[int, int]:
        """(height, width) in pixels after the transform, from the image's header: nothing is decoded."""
        try:
            with opened(self.content(picture, which)) as image:
                width, height = image.size
        except UnreadableImageError as error:
            raise BadExampleError(self._bad(picture, which, error)) from None
        width, height = self.transform.size(width, height)
        return height, width

    def texts(self) -> Iterator[list[int]]:
        """The token ids of every distinct text, in the order of first occurrence."""
        known = set()
        for text in self._texts if self.text_column else ():
            if (key := tuple(self._ids(text))) not in known:
                known.add(key)
                yield list(key)

    def seen(self, number: int, seed: int | None) -> dict[str, Any]:
        """Of what the texts of picture `number` are shown: pixels, or features where there are some; or `{"bad": why}`."""
        picture, seen = int(self._picture[number]), {}
        for which, column in enumerate(self.image_columns):
            features = None if self.features is None else self.features.image(picture, which)
            if features is not None:
                seen[f"{column}_features"] = features
                continue
            try:
                seen[column] = self._pixels(picture, which, None if seed is None else seed + which * OF_THE_NEXT)
            except UnreadableImageError as error:
                return {"bad": self._bad(picture, which, error)}
        return seen

    def said(self, text: int) -> dict[str, Any]:
        """A text: its token ids, and its features where there are some; nothing where rows hold no texts."""
        if not self.text_column:
            return {}
        ids = self._ids(text)
        features = None if self.features is None else self.features.text(ids)
        return {"text_ids": ids} if features is None else {"text_ids": ids, "text_features": features}

    def token_ids(self, number: int) -> list[int]:
        """Of the text that `dataset[number]` is about."""
        return self._ids(int(self._texts[number]))

    def _ids(self, text: int) -> list[int]:
        start, end = self._tokens["first"][text : text + 2]
        return self._tokens["ids"][start:end].tolist()

    @property
    def lengths(self) -> np.ndarray:
        """(texts,) how many tokens each has; 0 where rows hold no texts."""
        if not self.text_column:
            return np.zeros(len(self), int)
        return np.diff(self._tokens["first"])[self._texts]

    @property
    def example_bytes(self) -> int:
        """What the pixels of an example take in a batch, for a picture of 640 x 480; 0 where all fit the image cache and
        are decoded once."""
        width, height = self.transform.size(640, 480)
        pixels = 3 * width * height * len(self.image_columns)
        fits = pixels * self.pictures() <= self.image_cache_bytes
        return 0 if fits and not self.transform.augments else 4 * pixels

    def wordings(self, items: pa.Array) -> list[str]:
        """The texts of items of the text column's lists."""
        return items.to_pylist()

    def _indexed(self) -> dict[str, np.ndarray]:
        tables = self._tables()
        for path, table in zip(self._paths, tables, strict=True):
            check_whole(path, table)
            self._refuse_nulls(path, table)
        per_row = np.concatenate([self._texts_of(table) for table in tables])
        row = np.repeat(np.arange(len(per_row), dtype=np.int32), per_row)
        return {"row": row, "first_text": np.cumsum([0, *per_row])} | self.index(tables)

    def _texts_of(self, table: pa.Table) -> np.ndarray:
        """(rows,) how many texts each has."""
        return list_lengths(table[self.text_column]) if self.text_column else np.ones(table.num_rows, int)

    def _refuse_nulls(self, path: Path, table: pa.Table) -> None:
        """UserError where a column of numbers or texts lacks a value; images that lack theirs are bad examples."""
        for name in table.column_names:
            column = table[name]
            while name not in self.image_columns and not column.null_count and is_list(column.type):
                column = pc.list_flatten(column)
            if name not in self.image_columns and column.null_count:
                raise UserError(f"{path}: its column {name} lacks {column.null_count} values; make the file again")

    def _tokenised(self) -> dict[str, np.ndarray]:
        kind = np.min_scalar_type(self.tokenizer.size)
        ids, lengths = [np.zeros(0, kind)], [np.zeros(1, int)]
        texts = len(self._index["row"])
        with tqdm(desc=f"tokens of {'+'.join(self.splits)}", total=texts, unit="text", delay=2) as progress:
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
        if not self.transform.augments:
            seed = None
        if seed is None and (picture, which) in self._cached:
            return self._cached[picture, which]
        if seed is None and self._last.get(which, (None,))[0] == picture:
            return self._last[which][1].clone()
        image = self.transform.read(self.content(picture, which), seed)
        if seed is None and self._cached_bytes + image.nbytes <= self.image_cache_bytes:
            self._cached[picture, which] = image
            self._cached_bytes += image.nbytes
        elif seed is None:
            self._last[which] = picture, image.clone()  # what is not cached is its reader's own
        return image

    def _bad(self, picture: int, which: int, error: Exception) -> str:
        file, row = self._locate(self._rows[picture])
        where = f"{self._paths[file]} row {row}"
        if self.name_column:
            where += f" {self.name_column} {self._tables()[file][self.name_column][row]}"
        if len(self.image_columns) > 1:
            where += f" {self.image_columns[which]}"
        return f"{where}: {error}"

    def _locate(self, row: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._first_row, row, "right")) - 1
        return file, row - int(self._first_row[file])

    @cached_property
    def _manifest(self) -> dict | None:
        return manifest.read(self.data_dir)

    def _read(self, splits: Sequence[manifest.Split]) -> tuple[Sequence[int], Sequence[int]]:
        """Of all texts of the files those that are read, and the rows that they are in; both ascending."""
        row = self._index["row"]
        if all(split.texts is None for split in splits):
            return range(len(row)), range(int(self._first_row[-1]))
        files = np.cumsum([0, *(len(split.files) for split in splits)])
        first = self._index["first_text"][self._first_row[files]]
        texts = []
        for name, split, start, end in zip(self.splits, splits, first, first[1:], strict=False):
            chosen = np.arange(end - start) if split.texts is None else np.array(split.texts, int)
            if len(chosen) and not 0 <= chosen[0] <= chosen[-1] < end - start:
                raise UserError(
                    f"{self.data_dir}: {MANIFEST} gives {name} texts that its files lack; delete it and run "
                    "`vltune prepare` again"
                )
            texts.append(start + chosen)
        texts = np.concatenate(texts)
        return texts, np.unique(row[texts])

    def _part(self, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The same of a share of the pictures: the first ones of an order that does not depend on the share."""
        texts, rows = np.asarray(self._texts), np.asarray(self._rows)
        order = np.random.default_rng(seed).permutation(rows)
        rows = np.sort(order[: max(1, round(fraction * len(order)))])
        return texts[np.isin(self._index["row"][texts], rows)], rows

    def _tables(self) -> list[pa.Table]:
        if self._process != os.getpid():
            columns = [*self.image_columns, *self.other_columns]
            columns += [column for column in (self.text_column, self.name_column) if column]
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
        own = {"_process": None, "_opened": [], "_mapped": [], "_touched": 0, "_cached": {}, "_cached_bytes": 0}
        return own | {"_last": {}}  # the texts of a picture mostly follow each other

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | self._closed()


def split_of(file: Path) -> str:
    """The split that a file is of, or a shard of, by its name."""
    return _SHARD.sub("", file.stem)


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
