"""Predictions of many runs in one file beside their records, `predictions.parquet`: what is in it, run by run.

Its rows are the first of every run, then the second of every run, and so on: what runs say of one example lies together,
and takes a sixth of the room.  The column `run` names the record of a row; the other columns are those that any run has,
null where a run has none.  What each run's own file would be follows from the file's metadata."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.atomic import read_whole
from vltune.errors import UserError
from vltune.records.files import is_file, is_there, told

if TYPE_CHECKING:
    from pyarrow import ChunkedArray, DataType, Field, Schema, Table

PACK = "predictions.parquet"
RUN = "run"
"""The column of a record's name, which no run may have itself."""
INDEX = b"vltune.runs"
"""In the file's metadata: {"columns": [those of a run], "runs": {name: which of these, rows, metadata, when it started}}"""
_LARGEST = 1 << 26  # bytes of an index
_KEPT = 16  # files in memory: one of 100 runs has some 12 MB
_WIDEST = {"large_string": "string", "float": "double"} | {
    f"{sign}int{bits}": "int64" for sign, bits in (("", 8), ("", 16), ("", 32), ("u", 8), ("u", 16), ("u", 32))
}
"""Types that may be packed, beside those that they become where runs differ."""
_ODD = LookupError, TypeError, ValueError, AttributeError, RecursionError  # of an index that is not ours


@dataclass(frozen=True)
class PackedRun:
    """One run's predictions, read as its own file would be.  started: its record says so too, if it is this run's."""

    file: Path
    name: str
    started: str
    schema_arrow: Schema
    rows: Table

    def __str__(self) -> str:
        return f"{self.file} ({self.name})"

    def read(self, columns: Sequence[str] | None = None, use_threads: bool = False) -> Table:
        import pyarrow as pa

        own = self.schema_arrow
        try:
            fields = [own.field(name) for name in (own.names if columns is None else columns)]
            held = [_restored(self.rows[field.name], field.type) for field in fields]
            return pa.table(held, schema=pa.schema(fields, own.metadata))
        except (pa.ArrowException, LookupError, ValueError) as error:
            raise UserError(f"{self}: no file of predictions ({told(self.file, error)}): restore it") from None


@dataclass(frozen=True)
class Source:
    """What is packed of a run."""

    table: Table
    started: str


def find(file: Path) -> PackedRun | None:
    """What is packed in the place of a run's own `file`, which does not exist.  UserError where a pack cannot be read."""
    return of_folder(file.parent).get(file.stem)


def of_folder(folder: Path) -> Mapping[str, PackedRun]:
    """{name: its predictions} of the pack in a folder, read once as long as the file stays the same; empty without one."""
    file = folder / PACK
    if not is_there(file):
        return {}
    if not is_file(file):  # a pipe would be waited for
        raise UserError(f"{file}: no file of predictions (no regular file): restore it")
    found = file.stat()
    return _read(file, (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size))


@lru_cache(_KEPT)
def _read(file: Path, version: tuple[int, ...]) -> Mapping[str, PackedRun]:
    return read(file)


def read(file: Path) -> Mapping[str, PackedRun]:
    """UserError where it is no pack, or damaged."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    try:
        content = pa.py_buffer(read_whole(file)[0])  # once: another process may replace the file
        metadata = parquet.read_metadata(pa.BufferReader(content))
        index = _unpacked((metadata.metadata or {})[INDEX])
        texts = [field.name for field in metadata.schema.to_arrow_schema() if pa.types.is_string(field.type)]
        with parquet.ParquetFile(
            pa.BufferReader(content), metadata=metadata, read_dictionary=texts, page_checksum_verification=True
        ) as opened:
            table = opened.read(use_threads=False).unify_dictionaries().combine_chunks()
        owner = table[RUN].combine_chunks()
        codes, names = owner.indices.to_numpy(), owner.dictionary.to_pylist()
        rows = dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))
        named = {name: run["rows"] for name, run in index["runs"].items()}
        if dict.fromkeys(named, 0) | rows != named:
            raise ValueError("its rows are not those of the runs that it names")
        table = table.drop_columns(RUN).take(pa.array(np.argsort(codes, kind="stable")))
        columns = [[_field(**field) for field in fields] for fields in index["columns"]]
        starts = dict(zip(names, np.cumsum([0, *rows.values()]).tolist(), strict=False))
        return {
            name: PackedRun(
                file,
                name,
                run["started"],
                pa.schema(columns[run["columns"]], _coded(run["metadata"])),
                table.slice(starts.get(name, 0), run["rows"]),
            )
            for name, run in index["runs"].items()
        }
    except (pa.ArrowException, zlib.error, OSError, *_ODD) as error:
        why = "it is no pack" if error.args == (INDEX,) else told(file, error)
        raise UserError(f"{file}: no file of predictions ({why}): restore it") from None


def write(file: Path, runs: Mapping[str, Source]) -> None:
    """Writes a pack: the same bytes for the same runs.  ValueError where one cannot be packed with the others."""
    from pyarrow import parquet

    table, index = _together(dict(sorted(runs.items())))
    numbers = {f.name: str(f.type) for f in table.schema if _is_number(f.type) and f.name != "score"}
    encoding = {name: "DELTA_BINARY_PACKED" if "int" in kind else "BYTE_STREAM_SPLIT" for name, kind in numbers.items()}
    with parquet.ParquetWriter(
        file,
        table.schema,
        compression="zstd",
        compression_level=19,
        use_dictionary=[name for name in table.column_names if name not in numbers],
        column_encoding=encoding,
        data_page_size=1 << 26,  # one page a column
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    ) as opened:
        opened.write_table(table, row_group_size=max(1, len(table)))
        opened.add_key_value_metadata({INDEX: index})


def types(tables: Iterable[Table], known: Mapping[str, str]) -> dict[str, str]:
    """{column: its type in a pack} of these tables, with those that are known of others.

    Raises ValueError where a column would not come back as it is."""
    found = dict(known)
    for table in tables:
        for field in table.schema:
            own = _plain(field.type)
            if table.schema.names.count(field.name) > 1 or field.name == RUN:
                raise ValueError(f"a second column {field.name}")
            if own not in (*_WIDEST, *_WIDEST.values()) or not _field(**_described(field)).equals(field, True):
                raise ValueError(f"column {field.name} holds {field.type}")
            own = own.removeprefix("large_")
            other = found.get(field.name, own)
            if not (common := _common(other, own)):
                raise ValueError(f"column {field.name} holds {field.type}, and {other} where others have it")
            found[field.name] = common
    return found


def same(one: Table, other: Table) -> bool:
    """Whether these are the same rows, columns, types and metadata, fractions bit by bit."""
    return one.schema.equals(other.schema, check_metadata=True) and all(
        _bits(a).equals(_bits(b)) for a, b in zip(one.columns, other.columns, strict=True)
    )


def _bits(column: ChunkedArray) -> Any:
    """NaN is itself there, and -0.0 is not 0.0."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    flat = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return flat.view(f"int{kind.bit_width}") if pa.types.is_floating(kind) else flat


def _together(runs: Mapping[str, Source]) -> tuple[Table, bytes]:
    """One table of all, and the index of what it does not say itself."""
    import numpy as np
    import pyarrow as pa

    common = types((run.table for run in runs.values()), {})
    tables, columns, index = [], [], {}
    for name, run in runs.items():
        described = [_described(field) for field in run.table.schema]
        if described not in columns:
            columns.append(described)
        index[name] = {
            "rows": len(run.table),
            "started": run.started,
            "columns": columns.index(described),
            "metadata": _texts(run.table.schema.metadata),
        }
        plain = {field.name: _cast(run.table[field.name], common[field.name]) for field in run.table.schema}
        tables.append(pa.table(plain))
    order = np.argsort(np.concatenate([np.arange(len(table)) for table in tables]), kind="stable")
    owners = pa.array(np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables])[order])
    packed = json.dumps({"columns": columns, "runs": index}, separators=(",", ":")).encode()
    table = pa.concat_tables(tables, promote_options="default").take(pa.array(order))
    table = table.add_column(0, RUN, pa.DictionaryArray.from_arrays(owners, [*runs]))
    return table, b64encode(zlib.compress(packed, 9))


def _common(one: str, other: str) -> str:
    """The type that holds both; empty where there is none."""
    if one == other:
        return one
    widest = {_WIDEST.get(kind, kind) for kind in (one, other)}
    return widest.pop() if len(widest) == 1 else ""


def _is_number(kind: DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _plain(kind: DataType) -> str:
    """A type without the coding of its values."""
    import pyarrow as pa

    return str(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _cast(column: ChunkedArray, kind: str) -> ChunkedArray:
    import pyarrow as pa

    return column.cast(pa.type_for_alias(_plain(column.type))).cast(pa.type_for_alias(kind))


def _restored(column: ChunkedArray, kind: DataType) -> ChunkedArray:
    """As a file has it: the codes of a dictionary are in the order in which its values come."""
    import pyarrow as pa

    if not pa.types.is_dictionary(kind):
        return _cast(column, str(kind))
    plain = _cast(column, str(kind.value_type))
    chunks = [chunk.dictionary_encode() for chunk in plain.chunks]
    coded = [pa.DictionaryArray.from_arrays(each.indices.cast(kind.index_type), each.dictionary) for each in chunks]
    return pa.chunked_array(coded, kind)


def _described(field: Field) -> dict[str, Any]:
    import pyarrow as pa

    codes = {"codes": str(field.type.index_type)} if pa.types.is_dictionary(field.type) else {}
    metadata = {"metadata": _texts(field.metadata)} if field.metadata else {}
    return {"name": field.name, "type": _plain(field.type)} | codes | metadata


def _field(name: str, type: str, codes: str = "", metadata: Mapping[str, str] | None = None) -> Field:
    import pyarrow as pa

    plain = pa.type_for_alias(type)
    return pa.field(name, pa.dictionary(pa.type_for_alias(codes), plain) if codes else plain, metadata=_coded(metadata))


def _texts(metadata: Mapping[bytes, bytes] | None) -> dict[str, str] | None:
    return None if metadata is None else {_text(key): _text(each) for key, each in metadata.items()}


def _text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _coded(metadata: Mapping[str, str] | None) -> dict[bytes, bytes] | None:
    return None if metadata is None else {_bytes(key): _bytes(each) for key, each in metadata.items()}


def _unpacked(index: bytes) -> dict[str, Any]:
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(b64decode(index), _LARGEST)
    if not unpacking.eof:
        raise ValueError("its index is cut short")
    return json.loads(text)
