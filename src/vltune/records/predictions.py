"""The predictions of two runs, example by example: `split`, `id`, `prediction`, `score`, and what their metrics read.

`file` is a run's own, the record's name with another ending.  Where it is not there, its rows are looked for in its
folder's pack (`vltune.records.packed`): here alone is decided where a record's predictions are.  docs/answers.md shows a
file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.atomic import replacing
from vltune.errors import UserError
from vltune.metrics.metric import PERCENT, declared
from vltune.records import packed
from vltune.records.files import is_file, is_there, told
from vltune.records.packed import PackedRun

if TYPE_CHECKING:
    from pyarrow import Schema, Table
    from pyarrow.parquet import ParquetFile

PREDICTIONS = ".parquet"
"""The file beside a record that holds them, under its name."""
FILES = ""
"""The folder beside a record, under its name, that holds the files which predictions name."""
KIND = "kind"
"""In a column's metadata: what its task declared it to be."""
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


def are_there(file: Path, record: dict) -> bool:
    """Whether there is something to read, be it broken.  A run that took the place of one that is packed has none there."""
    try:
        return is_there(file) or is_packed(file, record)
    except UserError:
        return True


def is_packed(file: Path, record: dict) -> bool:
    """Whether the predictions of this very run lie in the pack, and no newer ones in its own file.

    Raises UserError where the pack cannot be read."""
    found = None if is_there(file) else packed.find(file)
    return found is not None and found.started == record["provenance"]["started"]


def whole(file: Path, record: dict | None = None) -> Table:
    """All that is in `file`, as it stands there.  Raises UserError as `read` does, but looks at no values."""
    with _open(file) as opened:
        if record is not None:
            _check_owner(opened, record, file)
        return opened.read(use_threads=False)


def are_same(file: Path, other: Path) -> bool:
    """Whether both hold the same, wherever it lies; False where one of them cannot be read."""
    try:
        return packed.same(whole(file), whole(other))
    except UserError:
        return False


def copy(file: Path, target: Path) -> None:
    """Writes to `target` what would be in `file`, were it not packed."""
    table = whole(file)
    with replacing(target) as temporary:
        save(table, temporary)


def save(table: Table, file: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(table, file, compression="zstd")


def read(file: Path, record: dict | None = None) -> Table:
    """The predictions in `file`: split and prediction as text, id as int64, score as a number or null.

    record: whose they must be, where the file says whose they are; then those columns follow, as text or int64, that its
    metrics read and the file has.  Raises UserError that names the file where it holds none, other values (scores outside
    0 to 1 where all metrics are in percent), or another run's."""
    metrics = declared(record).values() if record is not None else ()
    with _open(file) as opened:
        if record is not None:
            _check_owner(opened, record, file)
        asked = dict.fromkeys(column for metric in metrics for column in metric.columns)
        if images := _images(opened.schema_arrow):
            check_images(opened.read(columns=images), file, elsewhere=True)
        columns = [*COLUMNS, *(name for name in asked if opened.schema_arrow.names.count(name) == 1)]
        table = opened.read(columns=columns, use_threads=False).select(columns)
        return _checked(table, all(metric.unit == PERCENT for metric in metrics))


def pictures(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of predictions that say which pictures a run made: `id`, `prediction`, `picture` and `beside`,
    what it was compared with.  Empty where it says nothing of any, or is none."""
    try:
        with _open(file) as opened:
            named = _images(opened.schema_arrow)
            if "picture" not in named:
                return []
            rows = opened.read(columns=["id", "prediction", *named], use_threads=False).to_pylist()
    except UserError:
        return []
    return [{"beside": None} | row for row in rows]


def names_images(file: Path) -> bool:
    """Whether predictions name files in the folder beside them.  Raises UserError as `read` does."""
    with _open(file) as opened:
        return bool(_images(opened.schema_arrow))


def check_images(table: Table, file: Path, elsewhere: bool = False) -> None:
    """Raises ValueError where an image that predictions in `file` name does not lie in the folder beside them.

    elsewhere: whether all of them may have been left where the run was, being large."""
    folder = file.with_suffix(FILES)
    named = {path: name for name in _images(table.schema) for path in table[name].to_pylist() if path}
    for path, name in named.items():
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"column {name} names {path!r}, which does not lie in {folder.name}/")
    gone = [path for path in named if not is_file(folder / path)]
    if gone and not (elsewhere and len(gone) == len(named)):
        raise ValueError(f"column {named[gone[0]]} names {gone[0]!r}, which is not in {folder.name}/")


def _images(schema: Schema) -> list[str]:
    return [field.name for field in schema if (field.metadata or {}).get(KIND.encode()) == b"image"]


def _owner(opened: ParquetFile | PackedRun) -> dict[str, str]:
    """What a file says of whose predictions it holds: the run's id and identity, as text; a pack also when it started."""
    metadata = opened.schema_arrow.metadata or {}
    named = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}
    return named | ({"started": opened.started} if isinstance(opened, PackedRun) else {})


def _check_owner(opened: ParquetFile | PackedRun, record: dict, file: Path) -> None:
    named, identity = _owner(opened), {key: str(value) for key, value in record["identity"].items()}
    if isinstance(opened, PackedRun):
        file, identity = opened, identity | {"started": record["provenance"]["started"]}
    if differ := sorted(key for key in identity.keys() & named.keys() if identity[key] != named[key]):
        told = ", ".join(f"{key} {named[key]}" for key in differ)
        raise UserError(f"{file}: predictions of another run ({told}): restore the record's own")


def _checked(table: Table, percent: bool) -> Table:
    """The table in the types of `read`.  Raises ValueError that says which column holds something else."""
    import pyarrow as pa
    from pyarrow import compute, types

    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        if name == "score":
            fits, wanted = types.is_floating(kind) or types.is_null(kind), pa.float32()
            wanted = kind if kind in (pa.float32(), pa.float64()) else wanted
        elif name == "id" or (name not in COLUMNS and types.is_integer(kind)):
            fits, wanted = types.is_integer(kind), pa.int64()
        elif name not in COLUMNS and types.is_null(kind):
            fits, wanted = True, pa.int64()
        elif name not in COLUMNS and types.is_floating(kind):
            fits, wanted = True, pa.float64()
        else:
            fits, wanted = types.is_string(kind) or types.is_large_string(kind), pa.string()
        if not fits and len(column):
            raise ValueError(f"column {name} holds {column.type}")
        table = table.set_column(table.schema.get_field_index(name), name, column.cast(wanted))
        if name in COLUMNS and name != "score" and column.null_count:
            raise ValueError(f"{column.null_count} of {len(column)} rows have no {name}")
    table.validate(full=True)  # that texts are UTF-8, too
    scores = table["score"].drop_null()
    outside = (compute.less(scores, 0.0), compute.greater(scores, 1.0)) if percent else ()
    for wrong in (compute.invert(compute.is_finite(scores)), *outside):
        if count := compute.sum(wrong).as_py() or 0:
            first, what = scores.filter(wrong)[0].as_py(), "from 0 to 1" if percent else "numbers"
            raise ValueError(f"{count} of {len(scores)} scores are not {what}, such as {first:g}")
    return table


@contextmanager
def _open(file: Path) -> Iterator[ParquetFile | PackedRun]:
    import pyarrow as pa

    where: object = file
    try:
        with _found(file) as opened:
            where = opened if isinstance(opened, PackedRun) else file
            names = opened.schema_arrow.names
            if where is file and packed.INDEX in (opened.metadata.metadata or {}):
                raise ValueError("it holds those of many runs")
            if missing := [column for column in COLUMNS if names.count(column) != 1]:
                raise ValueError(f"it has not one column {missing[0]}")
            yield opened
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(f"{where}: no file of predictions ({told(file, error)}): restore it or run again") from None


def _found(file: Path) -> AbstractContextManager[ParquetFile | PackedRun]:
    """The run's own file, where it is there, else what is packed of it."""
    from pyarrow import parquet

    if is_file(file):
        with suppress(FileNotFoundError):  # packed this very moment
            return parquet.ParquetFile(file)
    elif is_there(file):  # a pipe would be waited for
        raise UserError(f"{file}: no file of predictions (no regular file): restore it or run again")
    found = packed.find(file)
    return nullcontext(found) if found else parquet.ParquetFile(file)


def align(a: Table, b: Table) -> tuple[Table, Table]:
    """The examples that both hold, in the same order.  Columns of fractions are what a run said, and tell none apart."""
    import pyarrow as pa

    shared = [name for name in a.column_names if name in b.column_names and name not in COLUMNS]
    keys = ["split", "id", *(name for name in shared if not pa.types.is_floating(a[name].type))]
    if all(a[key].equals(b[key]) for key in keys):
        return a, b
    places = {example: place for place, example in enumerate(_examples(b, keys))}
    common = [(place, places[example]) for place, example in enumerate(_examples(a, keys)) if example in places]
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


def _examples(table: Table, keys: Sequence[str]) -> list[tuple]:
    """What these columns do not tell apart is told apart by its order."""
    seen: Counter[tuple] = Counter()
    examples = []
    for example in zip(*(table[key].to_pylist() for key in keys), strict=True):
        examples.append((*example, seen[example]))
        seen[example] += 1
    return examples
