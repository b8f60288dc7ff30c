import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from vltune.data.arrow import open_mapped, open_table, write_table
from vltune.errors import UserError

SCHEMA = pa.schema({"id": pa.int64(), "text": pa.string()})


def batches(count):
    for start in range(count):
        yield pa.RecordBatch.from_pylist([{"id": start, "text": "x" * 50}], SCHEMA)


def test_more_shards_than_files_may_be_open_at_first(tmp_path):
    names = [str(tmp_path / f"{i}.arrow") for i in range(70)]
    for name in names:
        write_table(Path(name), SCHEMA, batches(1))

    def opening(limit):
        code = (
            "import resource, sys\nfrom vltune.data.arrow import open_mapped\nfrom vltune.errors import UserError\n"
            f"resource.setrlimit(resource.RLIMIT_NOFILE, {limit})\n"
            "try: print(len([open_mapped(name, ['id']) for name in sys.argv[1:]]))\n"
            "except UserError as error: print(error)"
        )
        return subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True).stdout

    assert opening((64, 256)) == "70\n"
    assert "no more files can be opened, as this process may have 64 and each shard is one: `ulimit -n`" in opening(
        (64, 64)
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "table.arrow"
    assert write_table(path, SCHEMA, batches(5)) == 5
    return path


def test_round_trip_is_memory_mapped(path):
    before = pa.total_allocated_bytes()
    table = open_table(path, ["text", "id"])
    assert table.column_names == ["text", "id"]
    assert table["id"].to_pylist() == [0, 1, 2, 3, 4]
    assert pa.total_allocated_bytes() == before


def test_nothing_is_left_of_a_broken_write(tmp_path):
    def broken():
        yield from batches(2)
        raise RuntimeError("disk on fire")

    path = tmp_path / "table.arrow"
    with pytest.raises(RuntimeError):
        write_table(path, SCHEMA, broken())
    assert list(tmp_path.iterdir()) == []


def replaced_by_parquet(path):
    pa.parquet.write_table(open_table(path, ["id"]), path.with_suffix(".parquet"))
    path.with_suffix(".parquet").replace(path)


EXPECTED = "; expected an Arrow file with the columns id"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file; expected an Arrow file with the columns id.*vltune prepare"),
        (lambda path: path.write_bytes(b""), f"an empty file{EXPECTED}"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), f"a truncated Arrow file .*{EXPECTED}; copy it again"),
        (
            lambda path: path.write_bytes(b"ARROW1\0\0" + bytes(99) + b"ARROW1"),
            f"a damaged Arrow file .*{EXPECTED}; copy it again",
        ),
        (replaced_by_parquet, f"a Parquet file{EXPECTED}"),
        (
            lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
            f"a Git LFS pointer, not the data itself{EXPECTED}; run `git lfs pull` in its repository, or make it with",
        ),
        (lambda path: path.write_bytes(b"hello, world"), f"a text that begins with hello, world{EXPECTED}"),
        (lambda path: path.write_bytes(gzip.compress(b"")), f"a gzip archive{EXPECTED}; unpack it .*, or make it with"),
        (lambda path: (path.unlink(), os.mkfifo(path)), f"a pipe{EXPECTED}"),
        (lambda path: (path.unlink(), path.symlink_to("nowhere")), f"a link to nothing{EXPECTED}"),
        (lambda path: (path.unlink(), path.mkdir()), f"a folder{EXPECTED}"),
    ],
)
def test_diagnosis(path, damage, message):
    damage(path)
    with pytest.raises(UserError, match=rf"table\.arrow: .*{message}") as error:
        open_table(path, ["id"])
    assert "\n" not in str(error.value)


def test_wrong_columns(path):
    with pytest.raises(UserError, match=r"lacks the column image, split; it has id, text"):
        open_table(path, ["id", "image", "split"])


def test_a_file_without_rows(path):
    write_table(path, SCHEMA, [])
    assert len(open_table(path, ["id"])) == 0


WANTED = {"image": pa.binary(), "questions": pa.list_(pa.string()), "labels": pa.list_(pa.list_(pa.int64()))}


def wide(path, **columns):
    """One row of these columns."""
    arrays = {
        "image": pa.array([b"jpeg"]),
        "questions": pa.array([["a", "b"]]),
        "labels": pa.array([[[1], [2, 3]]]),
        **columns,
    }
    batch = pa.record_batch(arrays)
    write_table(path, batch.schema, [batch])
    return open_mapped(path, list(WANTED), WANTED)[0]


@pytest.mark.parametrize(
    "column",
    [
        {"image": pa.array([b"jpeg"], pa.large_binary())},
        {"image": pa.array([b"jpeg"], pa.binary_view())},
        {"questions": pa.array([["a", "b"]], pa.large_list(pa.large_string()))},
        {"questions": pa.array([["a", "b"]], pa.list_(pa.string_view()))},
        {"labels": pa.array([[[1], [2, 3]]], pa.list_(pa.large_list(pa.int32())))},
    ],
    ids=lambda column: str(next(iter(column.values())).type),
)
def test_other_widths_and_layouts_hold_the_same(path, column):
    [row] = wide(path, **column).to_pylist()
    assert row == {"image": b"jpeg", "questions": ["a", "b"], "labels": [[1], [2, 3]]}


def test_empty_lists_have_any_type(path):
    """As pandas writes the answers of a test split."""
    assert wide(path, labels=pa.array([[]], pa.list_(pa.null())))["labels"].to_pylist() == [[]]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"image": pa.array(["a.jpg"])}, "its column image holds string, expected binary"),
        ({"image": pa.array([{"bytes": b""}])}, r"image holds struct<bytes: binary>, expected binary"),
        ({"questions": pa.array(["a"])}, r"questions holds string, expected list<.*string>"),
        ({"labels": pa.array([[1, 2]])}, r"labels holds list<.*int64>, expected list<.*list<.*int64>>"),
        ({"labels": pa.array([[["yes"]]])}, r"labels holds list<.*string>>, expected list<.*int64>>"),
    ],
)
def test_wrong_types(path, column, message):
    with pytest.raises(UserError, match=rf"table\.arrow: .*{message}; make it with") as error:
        wide(path, **column)
    assert "\n" not in str(error.value)


def test_as_pandas_leaves_it(path):
    """`pa.Table.from_pandas(frame)` of ViLT's writers: metadata, and sometimes the frame's index as a column."""
    about = {"index_columns": ["__index_level_0__"], "columns": [], "pandas_version": "1.1.5"}
    schema = pa.schema({"text": pa.list_(pa.string()), "__index_level_0__": pa.int64()}, {"pandas": json.dumps(about)})
    batches = [pa.record_batch([[["a", "b"]] * 3, [0, 1, 2]], schema), pa.record_batch([[["c"]], [3]], schema)]
    with pa.OSFile(str(path), "wb") as sink, pa.RecordBatchFileWriter(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    table = open_table(path, ["text"])
    assert table.column_names == ["text"]
    assert table["text"].to_pylist() == [["a", "b"]] * 3 + [["c"]]
