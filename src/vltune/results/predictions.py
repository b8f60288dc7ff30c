"""The predictions of two runs, example by example (docs/answers.md: columns `split`, `id`, `prediction`, `score`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.errors import UserError

if TYPE_CHECKING:
    from pyarrow import Table
    from pyarrow.parquet import ParquetFile

COLUMNS = ("split", "id", "prediction", "score")


@dataclass(frozen=True)
class Agreement:
    """Of `common` examples `same` have the same prediction; `alone` examples are in one of the two files only."""

    common: int = 0
    same: int = 0
    alone: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.common + other.common, self.same + other.same, self.alone + other.alone)

    @property
    def identical(self) -> bool:
        return self.same == self.common and not self.alone


def read(file: Path) -> Table:
    """The predictions in `file`.  Raises UserError that names it where it holds none."""
    import pyarrow as pa

    with _open(file) as opened:
        table = opened.read(columns=list(COLUMNS)).select(COLUMNS)
        return table.set_column(0, "split", table["split"].cast(pa.string()))


def owner(file: Path) -> dict[str, str]:
    """What `file` says of whose predictions it holds: the run's id and identity, as text.  UserError as `read`."""
    with _open(file) as opened:
        if missing := [column for column in COLUMNS if column not in opened.schema_arrow.names]:
            raise KeyError(f"lacks {', '.join(missing)}")
        return {key.decode(): value.decode() for key, value in (opened.schema_arrow.metadata or {}).items()}


@contextmanager
def _open(file: Path) -> Iterator[ParquetFile]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as opened:
            yield opened
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: no file of predictions ({reason}): restore it or run again") from None


def align(a: Table, b: Table) -> tuple[Table, Table]:
    """The examples that both hold, in the same order."""
    import pyarrow as pa

    if all(a[key].equals(b[key]) for key in ("split", "id")):
        return a, b
    places = {example: place for place, example in enumerate(_examples(b))}
    common = [(place, places[example]) for place, example in enumerate(_examples(a)) if example in places]
    places_a, places_b = (
        pa.array(column, pa.int64()) for column in (zip(*common, strict=True) if common else ([], []))
    )
    return a.take(places_a), b.take(places_b)


def agreement(a: Table, b: Table) -> Agreement:
    """How far two runs predict the same."""
    from pyarrow import compute

    aligned_a, aligned_b = align(a, b)
    common = aligned_a.num_rows
    same = compute.sum(compute.equal(aligned_a["prediction"], aligned_b["prediction"])).as_py() or 0
    return Agreement(common, same, a.num_rows + b.num_rows - 2 * common)


def _examples(table: Table) -> list[tuple[str, int, int]]:
    """An id can stand several times in a split, in retrieval for a caption and for an image: they are told by order."""
    seen: Counter[tuple[str, int]] = Counter()
    examples = []
    for example in zip(table["split"].to_pylist(), table["id"].to_pylist(), strict=True):
        examples.append((*example, seen[example]))
        seen[example] += 1
    return examples
