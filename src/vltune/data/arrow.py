"""Arrow IPC files: written as a stream of record batches, opened memory-mapped, diagnosed in one line."""

import errno
import mmap
import os
import resource
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import pyarrow as pa
from pyarrow import types

from vltune.atomic import replacing
from vltune.errors import UserError
from vltune.signatures import HEAD, identify, other_than_file

_MAGIC = b"ARROW1"
_FIX = "make it with `vltune prepare` (`vltune prepare --help`)"


def write_table(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write record batches as they come to an Arrow IPC file; return its number of rows.

    The format of ViLT's released files (`pa.RecordBatchFileWriter`).  `path` appears only when it is complete.
    """
    rows = 0
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.RecordBatchFileWriter(sink, schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def open_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """The named columns of an Arrow IPC file, memory-mapped: nothing is read before it is used.

    Raises UserError, saying what was found and what was expected, where the file is something else.
    """
    return open_mapped(path, columns)[0]


def open_mapped(
    path: Path, columns: Sequence[str], expected_types: Mapping[str, pa.DataType] | None = None
) -> tuple[pa.Table, mmap.mmap]:
    """`open_table`, and the mapping that the table reads from, whose pages can be given back.

    expected_types: by column; other widths of numbers and offsets do as well, and lists that are all empty.
    """
    path = Path(path)
    _allow_many_files()
    try:
        return _opened(path, columns, expected_types)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise UserError(
            f"{path}: no more files can be opened, as this process may have {limit} and each shard is one: "
            "`ulimit -n` tells and sets how many"
        ) from None


@cache
def _allow_many_files() -> None:
    """A mapped file stays open, and a large data set has more shards than the files that a process may have at first."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2**16 if most == resource.RLIM_INFINITY else min(most, 2**16)
    if least != resource.RLIM_INFINITY and least < wanted:
        with suppress(ValueError, OSError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _opened(
    path: Path, columns: Sequence[str], expected_types: Mapping[str, pa.DataType] | None
) -> tuple[pa.Table, mmap.mmap]:
    expected = f"expected an Arrow file with the columns {', '.join(columns)}"
    if (found := other_than_file(path)) is not None:
        raise UserError(f"{path}: {found}; {expected}; {_FIX}")
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(-min(len(_MAGIC), path.stat().st_size), os.SEEK_END)
        tail = file.read()
        if not head.startswith(_MAGIC):
            found = identify(head)
            raise UserError(f"{path}: {found.name}; {expected}; {f'{found.fix}, or ' if found.fix else ''}{_FIX}")
        if tail != _MAGIC:
            size = f"{path.stat().st_size:,} bytes"
            raise UserError(
                f"{path}: a truncated Arrow file ({size}, no end mark); {expected}; copy it again, or {_FIX}"
            )
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        table = pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error, f"; {expected}") from None
    if absent := [column for column in columns if column not in names]:
        raise UserError(f"{path}: lacks the column {', '.join(absent)}; it has {', '.join(names)}; {_FIX}")
    for column, wanted in (expected_types or {}).items():
        if not _alike(found := table.schema.field(column).type, wanted):
            raise UserError(f"{path}: its column {column} holds {found}, expected {wanted}; {_FIX}")
    return table.select(list(columns)), mapped


def check_whole(path: Path, table: pa.Table) -> None:
    """UserError where an opened file contradicts itself, so that reading on would end anyhow: texts that are not UTF-8,
    lists and bytes that lie outside of it.  Of images no byte is read."""
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception, expected: str = "") -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(f"{path}: a damaged Arrow file ({reason}){expected}; copy it again, or {_FIX}")


def _any_of(*kinds: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    return lambda data_type: any(kind(data_type) for kind in kinds)


is_list = _any_of(types.is_list, types.is_large_list, types.is_fixed_size_list)
_SCALARS = (
    _any_of(types.is_string, types.is_large_string, types.is_string_view),
    _any_of(types.is_binary, types.is_large_binary, types.is_binary_view),
    types.is_integer,
    types.is_floating,
)


def _alike(found: pa.DataType, expected: pa.DataType) -> bool:
    if is_list(found) and is_list(expected):
        return types.is_null(found.value_type) or _alike(found.value_type, expected.value_type)
    return any(kind(found) and kind(expected) for kind in _SCALARS)
