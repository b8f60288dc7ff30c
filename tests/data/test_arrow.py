import pyarrow as pa
import pyarrow.parquet
import pytest

from vltune.data.arrow import open_table, write_table
from vltune.errors import UserError

SCHEMA = pa.schema({"id": pa.int64(), "text": pa.string()})


def batches(count):
    for start in range(count):
        yield pa.RecordBatch.from_pylist([{"id": start, "text": "x" * 50}], SCHEMA)


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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file; expected an Arrow file with the columns id.*vltune prepare"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "truncated"),
        (lambda path: path.write_bytes(b"ARROW1\0\0" + bytes(99) + b"ARROW1"), "damaged"),
        (replaced_by_parquet, "a Parquet file"),
        (
            lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
            "Git LFS pointer.*git lfs pull",
        ),
        (lambda path: path.write_bytes(b"hello, world"), "a file of b'hello, w'"),
        (lambda path: (path.unlink(), path.mkdir()), "a folder"),
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
