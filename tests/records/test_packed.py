"""A pack: what each run's own file would be comes back from it, whatever its columns are, and always as the same bytes."""

import inspect
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fabricated import fabricate
from pyarrow import parquet

from vltune.engine.artifacts import write_predictions
from vltune.errors import UserError
from vltune.records import packed, predictions
from vltune.records.packed import Source
from vltune.tasks.task import Task

VALUES = {
    "text": lambda rng: str(rng.choice(["a box", "ein Würfel", "", "x" * 300])),
    "number": lambda rng: int(rng.integers(-5, 2**31 - 1)),
    "share": lambda rng: float(rng.random()),
}


def tasks():
    """{task: its columns}, of all tasks that name no image."""
    found = {}
    for file in (Path(__file__).parents[2] / "src/vltune/tasks").glob("*.py"):
        for name, each in inspect.getmembers(import_module(f"vltune.tasks.{file.stem}"), inspect.isclass):
            if issubclass(each, Task) and all(column.kind in VALUES for column in each.columns):
                found[name] = each.columns
    return found


def own(folder, seed, columns, splits=("val", "test"), count=40):
    """A run's own file as the engine writes it, some values missing; -> what it holds."""
    rng = np.random.default_rng(seed)
    rows = {
        split: [
            {"id": int(id), "prediction": VALUES["text"](rng), "score": None if rng.random() < 0.1 else rng.random()}
            | {column.name: VALUES[column.kind](rng) for column in columns if rng.random() < 0.9}
            for id in rng.permutation(count) * 1000
        ]
        for split in splits
    }
    file = folder / f"lora-{seed}.parquet"
    record = fabricate(seed=seed)
    write_predictions(file, rows, record, columns)
    return file, predictions.whole(file)


def back(folder, runs, started="2025"):
    """The runs, packed and read; {name: table} that was given."""
    packed.write(folder / "a.parquet", {name: Source(table, started) for name, table in runs.items()})
    found = packed.read(folder / "a.parquet")
    assert found.keys() == runs.keys()
    for name, table in runs.items():
        assert packed.same(found[name].read(), table), name
        assert found[name].started == started
    return found


@pytest.mark.parametrize(("name", "columns"), tasks().items())
def test_every_task_s_own_file_comes_back_to_the_byte(tmp_path, name, columns):
    files = dict(own(tmp_path, seed, columns) for seed in range(3))
    found = back(tmp_path, {file.stem: table for file, table in files.items()})
    for file in files:
        predictions.save(found[file.stem].read(), tmp_path / "again.parquet")
        assert (tmp_path / "again.parquet").read_bytes() == file.read_bytes()


def test_there_are_tasks_with_columns_of_every_kind():
    assert {column.kind for columns in tasks().values() for column in columns} == VALUES.keys()


def table(metadata=None, fields=None, **columns):
    base = {"split": ["test"], "id": [1], "prediction": ["red"], "score": pa.array([0.5], pa.float32())}
    made = pa.table(base | columns, metadata=metadata)
    for name, more in (fields or {}).items():
        made = made.cast(pa.schema([f.with_metadata(more) if f.name == name else f for f in made.schema], metadata))
    return made


@pytest.mark.parametrize(
    "odd",
    [
        {"metadata": {"seed": "1", b"\xff": b"\x00\xfe"}},
        {"metadata": {"kept": "1"}, "own": ["x"], "fields": {"own": {"kind": "text", "more": "ä"}}},
        {"own": pa.array([2**40])},
        {"own": pa.array([7], pa.uint32())},
        {"own": pa.array([None], pa.int8())},
        {"own": pa.array(["x"]).dictionary_encode()},
        {"own": pa.array(["x"], pa.large_string())},
        {"score": pa.array([0.1], pa.float64())},
        {"score": pa.array([-0.0], pa.float32())},
        {"own": pa.array([float("nan")]), "id": [-(2**63)]},
        {"prediction": pa.array([None], pa.string()), "id": pa.array([None], pa.int64())},
    ],
)
def test_odd_files_come_back_beside_usual_ones(tmp_path, odd):
    back(tmp_path, {"a": table(), "b": table(**odd), "c": table(more=pa.array([1], pa.int16()))})
    back(tmp_path, {"b": table(**odd)})


@pytest.mark.parametrize("other", [pa.array([3], pa.int8()), pa.array([3], pa.uint32()), pa.array([2**40])])
def test_numbers_of_several_widths_share_a_column(tmp_path, other):
    back(tmp_path, {"a": table(own=pa.array([1], pa.int32())), "b": table(own=other), "c": table()})


def test_runs_of_other_splits_lengths_and_columns_keep_their_own(tmp_path):
    (first, second, *_) = (columns for columns in tasks().values() if columns)
    given = [(0, first, ("val", "test")), (1, (), ("test",)), (2, second, ("test", "val", "own")), (3, first, ("val",))]
    runs = {str(seed): own(tmp_path, seed, *rest)[1] for seed, *rest in given}
    found = back(tmp_path, runs | {"none": runs["1"].slice(0, 0)})
    assert found["1"].schema_arrow.names == list(predictions.COLUMNS)
    assert found["none"].read().num_rows == 0
    back(tmp_path, {"none": runs["1"].slice(0, 0)})


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"own": [[1, 2]]}, "column own holds list"),
        ({"own": [b"x"]}, "column own holds binary"),
        ({"own": pa.array([2**63], pa.uint64())}, "column own holds uint64"),
        ({"own": pa.nulls(1)}, "column own holds null"),
        ({"run": ["mine"]}, "a second column run"),
        ({"sure": [1]}, "column sure holds int64, and string where others have it"),
        ({"sure": [0.5]}, "column sure holds double, and string where others have it"),
    ],
)
def test_what_would_not_come_back_is_refused(tmp_path, columns, why):
    runs = {"a": Source(table(sure=["yes"]), ""), "b": Source(table(**columns), "")}
    with pytest.raises(ValueError, match=why):
        packed.write(tmp_path / "a.parquet", runs)


def test_the_same_runs_make_the_same_bytes_in_whichever_order(tmp_path):
    runs = [(str(seed), Source(own(tmp_path, seed, ())[1], "")) for seed in range(4)]
    for name, order in (("a", runs), ("b", runs[::-1])):
        packed.write(tmp_path / name, dict(order))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = {name: Source(run.read(), run.started) for name, run in packed.read(tmp_path / "a").items()}
    packed.write(tmp_path / "c", read)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


def test_what_tells_two_tables_apart():
    one = table({"seed": "1"})
    assert packed.same(one, table({"seed": "1"}))
    others = [table({"seed": "2"}), table({"seed": "1"}, id=[2]), table({"seed": "1"}, id=pa.array([1], pa.int32()))]
    others += [table({"seed": "1"}, fields={"id": {"kind": "number"}}), table({"seed": "1"}, own=[1])]
    others += [table({"seed": "1"}, score=pa.array([each], pa.float32())) for each in (None, 0.50000006)]
    assert not [other for other in others if packed.same(one, other)]


def test_a_damaged_pack_is_one_line_or_what_it_was(tmp_path):
    runs = {str(seed): own(tmp_path, seed, ())[1] for seed in range(3)}
    back(tmp_path, runs)
    content, refused = (tmp_path / "a.parquet").read_bytes(), 0
    rng, file = np.random.default_rng(0), tmp_path / "b.parquet"
    for turn in range(300):
        damaged = bytearray(content[: rng.integers(len(content))] if turn % 5 == 0 else content)
        if damaged:
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        try:
            found = packed.read(file)
            assert all(packed.same(found[name].read(), run) for name, run in runs.items())
        except UserError as error:
            assert str(error).startswith(str(file))
            refused += 1
    assert refused > 250


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (None, "it is no pack"),
    ],
)
def test_what_is_no_pack_is_said(tmp_path, content, said):
    file = tmp_path / packed.PACK
    file.write_bytes(content) if content is not None else parquet.write_table(table(), file)
    with pytest.raises(UserError, match=rf"{packed.PACK}: no file of predictions \({said}"):
        packed.of_folder(tmp_path)
    with pytest.raises(UserError, match=said):
        predictions.read(tmp_path / "lora.parquet")


def test_a_pack_under_a_run_s_name_is_no_run_s(tmp_path):
    back(tmp_path, {"a": table()})
    with pytest.raises(UserError, match=r"a.parquet: no file of predictions \(it holds those of many runs\)"):
        predictions.whole(tmp_path / "a.parquet")
