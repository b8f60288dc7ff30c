"""What is in the rows of an Arrow file: every image decoded, every label looked at."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from vltune.data.arrow import open_mapped
from vltune.data.check.kind import Kind
from vltune.data.dataset import kinds
from vltune.images import UnreadableImageError, is_seen_through, is_turned, opened

NAMED = 5  # problems that are told of each file; the others are counted
DIGEST = 16  # bytes that stand for an image
# What is well to know of images that are used all the same.
TURNED = "with an EXIF orientation, which both decoders leave unheeded as the released code does"
SEEN_THROUGH = (
    "partly transparent, of which the colours underneath are shown, as by released code but METER's evaluation"
)


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
class Span:
    """Rows `first` to before `end` of a file to be looked at.  answers: the vocabulary, None for unknown ones."""

    file: Path
    kind: str
    first: int
    end: int
    answers: Sequence[str | None]


@dataclass
class Found:
    """What rows hold.  digests: of their images, row by row.  ids: of their questions.  names: of the rows, where a score
    follows from these.  labels: how many rows are of which class.  notes: how many images are what."""

    texts: int = 0
    digests: bytearray = field(default_factory=bytearray)
    ids: array = field(default_factory=lambda: array("q"))
    names: list[str] = field(default_factory=list)
    labels: Counter[int] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    problems: Problems = field(default_factory=Problems)


def look(span: Span) -> tuple[Span, Found]:
    kind, found = kinds()[span.kind], Found()
    rows = open_rows(span.file, kind).slice(span.first, span.end - span.first)
    for number, row in enumerate(rows.to_batches(max_chunksize=1), span.first):
        where = f"{span.file.name} row {number}"
        for column in kind.images:
            content = row.column(column)[0].as_buffer() or b""
            found.digests += blake2b(content, digest_size=DIGEST).digest()
            for problem in _look_at(content, found.notes):
                found.problems.add(f"{where}: {column} {problem}")
        [others] = row.drop_columns(kind.images).to_pylist()
        try:
            found.texts += (texts := len(others[kind.text_column]) if kind.text_column else 1)
            found.ids.extend(others.get("question_id", ()))
            if kind.name:
                found.names.append(others[kind.name])
            if kind.label:
                found.labels[others[kind.label]] += 1
            for problem in kind.problems(others, span.answers):
                found.problems.add(f"{where}: {problem}")
            if not texts:
                found.problems.add(f"{where}: no {kind.counted[1]}")
        except (TypeError, AttributeError):
            found.problems.add(f"{where}: a column lacks its value")
    return span, found


def open_rows(file: Path, kind: Kind) -> pa.Table:
    return open_mapped(file, kind.columns.names, {column.name: column.type for column in kind.columns})[0]


def _look_at(content: pa.Buffer | bytes, notes: Counter[str]) -> Iterator[str]:
    """What is wrong with an image; counts in `notes` what is well to know."""
    try:
        with opened(content) as image:
            image.load()
            notes[TURNED] += is_turned(image)
            notes[SEEN_THROUGH] += is_seen_through(image)
            mode = image.mode
    except UnreadableImageError as error:
        yield f"cannot be decoded: {error}"
    else:
        if mode.startswith(("I", "F")):
            yield f"is of mode {mode}, which is cut off at 255 and not scaled: nearly white or black; store it with 8 bits"
