"""Arrow files of about a thousand rows: planned, written with the bytes of their images, named so that all are counted."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vltune.atomic import replacing
from vltune.data.arrow import open_table, write_table
from vltune.data.preparation.entries import RowDatabase
from vltune.images import UnreadableImageError, opened

SIDECARS = "*.arrow.json"
_ROWS = 1000  # of a shard at most
_ROWS_PER_BATCH, _BYTES_PER_BATCH = 64, 2**22  # of a record batch, whichever comes first


@dataclass(frozen=True)
class Shard:
    """Rows `first` to before `end` of a split, in a file."""

    file: str
    split: str
    first: int
    end: int


@dataclass
class Written:
    """What a shard holds.  bad: image files that cannot be read, with the reason.  dropped: the numbers of their rows."""

    rows: int = 0
    texts: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class ShardSpec:
    """A shard to be written.  folder: receives it.  database: of the rows.  raw: what their files are relative to.
    stored: what is stored of an image file's bytes; None: these."""

    shard: Shard
    folder: Path
    database: Path
    raw: Path
    schema: pa.Schema
    text_column: str | None
    stored: Callable[[bytes], bytes] | None = None


def plan(stem: str, parts: Mapping[str, list[tuple[str, int, int]]]) -> dict[str, list[Shard]]:
    """The shards of every split: its own, and those of others where all its rows are theirs.

    parts: for every split to write, which rows of which split it is: (split, first, end)."""
    own = {
        (split, first, end): _shards(f"{stem}_{name}", split, first, end)
        for name, [(split, first, end), *more] in parts.items()
        if not more
    }
    return {f"{stem}_{name}": [shard for part in of for shard in own[part]] for name, of in parts.items()}


def _shards(name: str, split: str, first: int, end: int) -> list[Shard]:
    starts = range(first, max(end, first + 1), _ROWS)
    return [
        Shard(f"{name}-{number:05d}-of-{len(starts):05d}.arrow", split, start, min(start + _ROWS, end))
        for number, start in enumerate(starts)
    ]


def sidecar(folder: Path, shard: Shard) -> Path:
    return folder / f"{shard.file}.json"


def finished(folder: Path, shard: Shard) -> Written | None:
    """What an earlier run wrote of a shard; None where it is not whole."""
    try:
        written = Written(**json.loads(sidecar(folder, shard).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return written if (folder / shard.file).exists() else None


def write(spec: ShardSpec) -> tuple[Shard, Written]:
    """Writes a shard and beside it what it holds: with the latter it is whole."""
    written = Written()
    write_table(spec.folder / spec.shard.file, spec.schema, _batches(spec, written))
    with replacing(sidecar(spec.folder, spec.shard)) as file:
        file.write_text(json.dumps(asdict(written)))
    return spec.shard, written


def binary_sizes(file: Path, schema: pa.Schema) -> Iterator[set[int | None]]:
    """How large the images of a shard are, in bytes, by column; no image is read."""
    images = [name for name in schema.names if schema.field(name).type == pa.binary()]
    for column in open_table(file, images).columns:
        yield {*pc.binary_length(column).to_pylist()}


def _batches(spec: ShardSpec, written: Written) -> Iterator[pa.RecordBatch]:
    batch = _Batch(spec.schema)
    for images, others in _complete(spec, written):
        batch.add(images, others)
        if len(batch.rows) == _ROWS_PER_BATCH or batch.size() > _BYTES_PER_BATCH:
            yield batch.record()
            batch = _Batch(spec.schema)
    if batch.rows:
        yield batch.record()


class _Batch:
    """Rows of which images are kept end to end: `pa.array` would take up to three times their size on the way."""

    def __init__(self, schema: pa.Schema):
        self.schema = schema
        self.rows: list[dict[str, Any]] = []
        self.images = {name: bytearray() for name in schema.names if schema.field(name).type == pa.binary()}
        self.ends = {name: [0] for name in self.images}

    def add(self, images: dict[str, bytes], others: dict[str, Any]) -> None:
        self.rows.append(others)
        for name, content in images.items():
            self.images[name] += content
            self.ends[name].append(len(self.images[name]))

    def size(self) -> int:
        return sum(map(len, self.images.values()))

    def record(self) -> pa.RecordBatch:
        arrays = [
            self._binary(field.name)
            if field.name in self.images
            else pa.array([row[field.name] for row in self.rows], field.type)
            for field in self.schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _binary(self, name: str) -> pa.Array:
        _, offsets = pa.array(self.ends[name], pa.int32()).buffers()
        return pa.Array.from_buffers(pa.binary(), len(self.rows), [None, offsets, pa.py_buffer(self.images[name])])


def _complete(spec: ShardSpec, written: Written) -> Iterator[tuple[dict[str, bytes], dict[str, Any]]]:
    """Rows with their images.  One with an image that cannot be used is left out, and noted."""
    shard = spec.shard
    for number, (files, others) in RowDatabase(spec.database)(shard.split, shard.first, shard.end):
        images = {}
        for column, file in files.items():
            try:
                content = (spec.raw / file).read_bytes()
                with opened(content):
                    images[column] = spec.stored(content) if spec.stored else content
            except UnreadableImageError as error:
                written.bad[file] = str(error)
            except OSError as error:
                written.bad[file] = error.strerror
        if len(images) < len(files):
            written.dropped.append(number)
            continue
        written.rows += 1
        written.texts += len(others[spec.text_column]) if spec.text_column else 1
        yield images, others
