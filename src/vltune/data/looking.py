"""What is in the rows of an Arrow file: every image decoded, every label looked at."""

import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from vltune.data.arrow import open_mapped
from vltune.data.prepare import karpathy, nlvr2, snli_ve, vqav2
from vltune.data.shards import UNREADABLE

NAMED = 5  # problems that are told of each file; the others are counted
DIGEST = 16  # bytes that stand for an image


@dataclass(frozen=True)
class Kind:
    """A data set's files.  counted: what the manifest calls rows and texts.  problems: what is wrong with a row."""

    schema: pa.Schema
    counted: tuple[str, str]
    text_column: str
    problems: Callable[[Mapping[str, Any], Sequence[str | None]], Iterator[str]]

    @property
    def columns(self) -> pa.Schema:
        """Those that are looked at: METER's own files lack `split`, which nobody reads."""
        return pa.schema(column for column in self.schema if column.name != "split")

    @property
    def images(self) -> list[str]:
        return [column.name for column in self.schema if column.type == pa.binary()]


_CAPTIONS = Kind(karpathy.SCHEMA, ("images", "captions"), "caption", karpathy.problems)
KINDS = {
    "vqav2": Kind(vqav2.SCHEMA, ("images", "questions"), "questions", vqav2.problems),
    "nlvr2": Kind(nlvr2.SCHEMA, ("pairs", "statements"), "questions", nlvr2.problems),
    "f30k_caption_karpathy": _CAPTIONS,
    "coco_caption_karpathy": _CAPTIONS,
    "snli": Kind(snli_ve.SCHEMA, ("images", "sentences"), "sentences", snli_ve.problems),
}


@dataclass
class Problems:
    """What is wrong with a file: the first few, and how many there are."""

    named: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, problem: str) -> None:
        self.count += 1
        if len(self.named) < NAMED:
            self.named.append(problem)

    def extend(self, more: "Problems") -> None:
        self.count += more.count
        self.named = [*self.named, *more.named][:NAMED]


@dataclass(frozen=True)
class Job:
    """Rows `first` to before `end` of a file to be looked at.  answers: the vocabulary, None for unknown ones."""

    file: Path
    kind: str
    first: int
    end: int
    answers: Sequence[str | None]


@dataclass
class Found:
    """What rows hold.  digests: of their images, row by row.  ids: of their questions."""

    texts: int = 0
    digests: bytearray = field(default_factory=bytearray)
    ids: array = field(default_factory=lambda: array("q"))
    problems: Problems = field(default_factory=Problems)


def look(job: Job) -> tuple[Job, Found]:
    kind, found = KINDS[job.kind], Found()
    rows = open_rows(job.file, kind).slice(job.first, job.end - job.first)
    for number, row in enumerate(rows.to_batches(max_chunksize=1), job.first):
        where = f"{job.file.name} row {number}"
        for column in kind.images:
            content = row.column(column)[0].as_buffer() or b""
            found.digests += blake2b(content, digest_size=DIGEST).digest()
            if (reason := _undecodable(content)) is not None:
                found.problems.add(f"{where}: {column} cannot be decoded: {reason}")
        [others] = row.drop_columns(kind.images).to_pylist()
        try:
            found.texts += len(others[kind.text_column])
            found.ids.extend(others.get("question_id", ()))
            for problem in kind.problems(others, job.answers):
                found.problems.add(f"{where}: {problem}")
        except TypeError:
            found.problems.add(f"{where}: a column lacks its value")
    return job, found


def open_rows(file: Path, kind: Kind) -> pa.Table:
    return open_mapped(file, kind.columns.names, {column.name: column.type for column in kind.columns})[0]


def _undecodable(content: pa.Buffer | bytes) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that nobody reads
        try:
            with Image.open(BytesIO(content)) as image:
                image.load()
        except UNREADABLE as error:
            return str(error).partition("\n")[0] or type(error).__name__
    return None
