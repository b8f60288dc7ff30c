"""`vltune pack`: nothing is lost, whatever happens, and no run is given another's predictions."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path
from pydoc import locate

import pyarrow as pa
import pytest
from fabricated import Root, fabricate
from pyarrow import parquet
from typer.testing import CliRunner

from vltune.cli import app
from vltune.engine.artifacts import write_predictions
from vltune.errors import UserError
from vltune.records import folders, merge, packed, predictions, store, verified
from vltune.records import record as records
from vltune.records.pack import pack
from vltune.records.packed import PACK
from vltune.tasks.nlvr2 import NLVR2
from vltune.tasks.task import RowColumn

fork = multiprocessing.get_context("fork")
AT = "records/vilt_mini/vqa-shapes"


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "results")


def started(when):
    return {"provenance": fabricate()["provenance"] | {"started": when}}


def add(root, seed=0, right=3, columns=(), **fields):
    """A run that answered `right` of five questions, and its predictions."""
    scores = {} if fields.get("status", "finished") != "finished" else {"score": 20.0 * right}
    file = root.add(**scores, seed=seed, **fields)
    rows = [{"id": 1000 * i, "prediction": f"{seed} {i}", "score": float(i < right)} for i in range(5)]
    own = {"sentence": 7, "pair": "a", "made": f"test/{seed}.png"}
    rows = [row | {column.name: own[column.name] for column in columns} for row in rows]
    if any(column.kind == "image" for column in columns):
        (file.with_suffix("") / "test").mkdir(parents=True)
        (file.with_suffix("") / own["made"]).write_bytes(b"\x89PNG")
    write_predictions(file.with_suffix(".parquet"), {"test": rows}, records.read(file), columns)
    return file


def invoke(*folders, status=0):
    done = CliRunner().invoke(app, ["pack", *map(str, folders)], env={"COLUMNS": "160"})
    assert done.exit_code == status, done.output
    return done.output


def held(folder):
    """{record: its predictions, as its own file has them}, wherever they lie."""
    files = [file for file in folder.rglob("*.json") if "replaced" not in file.parts]
    return {
        file: predictions.whole(file.with_suffix(".parquet"), record)
        for file in files
        if predictions.are_there(file.with_suffix(".parquet"), record := records.read(file))
    }


def check_same(folder, before):
    now = held(folder)
    assert now.keys() == before.keys()
    assert not [file for file, table in before.items() if not packed.same(now[file], table)]


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".json")


def test_one_file_takes_the_place_of_those_of_all_finished_runs(root):
    for seed in range(3):
        add(root, seed)
    add(root, 5, status="interrupted", metrics={"val": None, "test": None})
    add(Root(root.folder / "low_data"), 7)
    texts = {file: file.read_bytes() for file in root.folder.rglob("*.json")}
    before = held(root.folder)
    told = invoke(root.folder)
    assert names(root.folder / AT) == ["lora-0a1b2c3d-seed5.parquet", PACK]
    assert names(root.folder / "low_data" / AT) == [PACK]
    check_same(root.folder, before)
    assert {file: file.read_bytes() for file in root.folder.rglob("*.json")} == texts
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.splitlines() if line.startswith("│")]
    assert [row[1] for row in rows] == ["3", "1", "4"]
    assert store.load(root.folder, pytest.fail)


def test_a_person_finds_the_rows_of_a_run_by_its_name(root):
    add(root, 0)
    add(root, 1)
    invoke(root.folder)
    rows = parquet.read_table(root.folder / AT / PACK).to_pylist()
    assert [row["run"][-5:] for row in rows[:3]] == ["seed0", "seed1", "seed0"]
    assert {row["prediction"] for row in rows if row["run"] == "lora-0a1b2c3d-seed1"} == {f"1 {i}" for i in range(5)}


def test_runs_that_finished_since_join_and_newer_files_replace(root):
    add(root, 0)
    add(root, 1)
    invoke(root.folder)
    content = (root.folder / AT / PACK).read_bytes()
    invoke(root.folder)
    assert (root.folder / AT / PACK).read_bytes() == content
    add(root, 2)
    add(root, 1, right=5, **started("2026-01-01T00:00:00+00:00"))
    before = held(root.folder)
    assert before[root.folder / AT / "lora-0a1b2c3d-seed1.json"]["score"].to_pylist() == [1.0] * 5
    invoke(root.folder)
    assert names(root.folder / AT) == [PACK]
    check_same(root.folder, before)


def test_packing_bit_by_bit_makes_the_same_bytes_as_at_once(root, tmp_path):
    for seed in (2, 0, 1):
        add(root, seed, columns=NLVR2.columns if seed else ())
        shutil.copytree(root.folder, tmp_path / "at once", dirs_exist_ok=True)
        invoke(root.folder)
    invoke(tmp_path / "at once")
    assert (root.folder / AT / PACK).read_bytes() == (tmp_path / "at once" / AT / PACK).read_bytes()


def cut(file):
    file.write_bytes(file.read_bytes()[:-20])


def anothers(file):
    add(Root(file.parents[3]), 9)
    file.with_name("lora-0a1b2c3d-seed9.parquet").replace(file)


def listed(file):
    table = predictions.whole(file)
    parquet.write_table(table.append_column("own", pa.array([[1]] * len(table))), file)


def other_type(file):
    table = predictions.whole(file)
    parquet.write_table(table.append_column("pair", pa.array([1] * len(table))), file)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut, "no file of predictions"),
        (lambda file: file.write_bytes(b""), "no file of predictions (an empty file"),
        (lambda file: (file.unlink(), file.mkdir()), "no file of predictions (no regular file)"),
        (anothers, "predictions of another run (seed 9)"),
        (listed, "stays as it is, for a pack cannot hold it (column own holds list<"),
        (other_type, "stays as it is, for a pack cannot hold it (column pair holds int64, and string where others"),
    ],
)
def test_a_file_that_cannot_be_packed_is_named_and_left(root, spoil, said):
    add(root, 0, columns=NLVR2.columns)
    file = add(root, 1).with_suffix(".parquet")
    spoil(file)
    there = file.is_dir() or file.read_bytes()
    lines = [line for line in invoke(root.folder, status=1).splitlines() if line.startswith("left")]
    assert [line.partition(f"{file}: ")[2][: len(said)] for line in lines] == [said]
    assert there == (file.is_dir() or file.read_bytes())
    assert list(packed.of_folder(file.parent)) == ["lora-0a1b2c3d-seed0"]


def test_a_broken_pack_is_named_once_and_left_with_all_files(root):
    add(root, 0)
    invoke(root.folder)
    add(root, 1)
    root.fail(seed=2)
    pack = root.folder / AT / PACK
    cut(pack)
    content = pack.read_bytes()
    told = invoke(root.folder, status=1)
    assert told.count(f"left: {pack}: no file of predictions") == 1
    assert (names(pack.parent), pack.read_bytes()) == (["lora-0a1b2c3d-seed1.parquet", PACK], content)
    broken = []
    assert len(store.load(root.folder, lambda error: broken.append(str(error)))) == 3
    assert [each.partition(":")[0] for each in broken] == [str(pack)]


def test_predictions_that_name_images_stay_beside_them(root):
    file = add(root, 0, columns=[RowColumn("made", "image")])
    add(root, 1)
    told = invoke(root.folder)
    assert f"left: {file.parent} (1 runs whose predictions name pictures beside their records)" in told
    assert names(file.parent) == [file.stem, f"{file.stem}.parquet", PACK]
    assert predictions.pictures(file.with_suffix(".parquet")) == []  # of no column `picture`
    assert predictions.pictures(file.with_name("lora-0a1b2c3d-seed1.parquet")) == []


@pytest.mark.parametrize("name", ["predictions", "another"])
def test_records_under_other_names_keep_their_predictions(root, name):
    file = add(root, 0)
    for suffix in (".json", ".parquet"):
        file.with_suffix(suffix).rename(file.with_name(f"{name}{suffix}"))
    folder = file.parent.rename(root.folder.with_name("elsewhere"))
    before = held(folder)
    told = invoke(folder, status=name == "predictions")
    assert ("its predictions would have the name of a pack: rename" in told) == (name == "predictions")
    check_same(folder, before)


STEPS = [("vltune.records.packed.write", 1), ("vltune.records.packed.read", 1), ("vltune.records.packed.read", 2)]
STEPS += [("os.fsync", 1), ("os.fsync", 2), ("pathlib.Path.replace", 1)]
STEPS += [("pathlib.Path.unlink", turn) for turn in (1, 2, 3, 4, 5)]  # temporary file, three of runs, lock


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("step", "turn"), STEPS)
def test_killed_anywhere_it_loses_nothing_and_the_next_one_finishes(root, tmp_path, monkeypatch, step, turn, after):
    """turn: at which call of the step.  after: when that is done, else before."""
    add(root, 0)
    invoke(root.folder)
    for seed in range(1, 4):
        add(root, seed)
    before = held(root.folder)
    shutil.copytree(root.folder, tmp_path / "other")
    packed._read.cache_clear()

    def killed():
        called, real = [], locate(step)

        def stopping(*args, **kwargs):
            called.append(step)
            if len(called) == turn and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **kwargs)
            if len(called) == turn:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        monkeypatch.setattr(step, stopping)
        list(pack(root.folder, lambda error: None))

    process = fork.Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    check_same(root.folder, before)
    assert store.load(root.folder, pytest.fail)
    invoke(root.folder)
    check_same(root.folder, before)
    assert names(root.folder / AT) == [PACK]
    invoke(tmp_path / "other")
    assert (root.folder / AT / PACK).read_bytes() == (tmp_path / "other" / AT / PACK).read_bytes()


def test_what_does_not_come_back_from_the_disk_removes_nothing(root, monkeypatch):
    add(root, 0)
    before, real = names(root.folder / AT), packed.read

    def other(file):
        found = real(file)
        return {name: packed.PackedRun(file, name, "1999", run.schema_arrow, run.rows) for name, run in found.items()}

    monkeypatch.setattr(packed, "read", other)
    told = invoke(root.folder, status=1)
    assert f"{PACK}: lora-0a1b2c3d-seed0 was not read back as it was, so that nothing is packed" in told
    assert names(root.folder / AT) == before


def test_a_file_that_another_took_the_place_of_meanwhile_stays(root, monkeypatch):
    file, real = add(root, 0), packed.write

    def slow(*args):
        add(root, 0, right=5, **started("2026-01-01T00:00:00+00:00"))
        real(*args)

    monkeypatch.setattr(packed, "write", slow)
    invoke(root.folder)
    table = predictions.read(file.with_suffix(".parquet"), records.read(file))
    assert table["score"].to_pylist() == [1.0] * 5
    monkeypatch.undo()
    invoke(root.folder)
    assert held(root.folder)[file]["score"].to_pylist() == [1.0] * 5
    assert names(file.parent) == [PACK]


def test_two_at_once_lose_nothing(root):
    for seed in range(6):
        add(root, seed)
    before = held(root.folder)
    both = [threading.Thread(target=lambda: list(pack(root.folder, lambda error: None))) for _ in range(4)]
    for each in both:
        each.start()
    add(root, 6)
    for each in both:
        each.join()
    invoke(root.folder)
    assert names(root.folder / AT) == [PACK]
    check_same(root.folder, before | {file: held(root.folder)[file] for file in held(root.folder).keys() - before})


def test_a_record_s_place_taken_by_hand_is_not_given_its_predictions(root):
    file = add(root, 0)
    invoke(root.folder)
    beside = file.with_suffix(".parquet")
    add(root, 0, **started("2026-01-01T00:00:00+00:00"))
    beside.unlink()
    record = records.read(file)
    assert not predictions.are_there(beside, record)
    assert verified.check(record, file) == ""
    with pytest.raises(UserError, match=rf"{PACK} \(lora-0a1b2c3d-seed0\): predictions of another run \(started 2025"):
        predictions.read(beside, record)
    with pytest.raises(UserError, match="no predictions there"):
        verified.outcomes(beside, "test.vqa_score", record)


def test_a_pack_of_another_folder_is_refused_as_another_run_s(root):
    """Whose identity differs: here by its data set."""
    file = add(root, 0)
    other = add(Root(root.folder), 0, dataset="vqav2")
    invoke(root.folder)
    (file.parent / PACK).replace(other.parent / PACK)
    said = verified.check(records.read(other), other)
    assert said.startswith(f"{other.parent / PACK} ({other.stem}): predictions of another run (dataset shapes)")
    file.unlink()
    assert packed.of_folder(other.parent).keys() == {other.stem}


def test_what_is_put_aside_takes_its_predictions_along(root):
    file = add(root, 0)
    add(root, 1)
    invoke(root.folder)
    before = held(root.folder)
    kept = folders.put_aside(folders.RecordFile(file, "records", records.read(file)), root.folder)
    assert packed.same(
        predictions.whole(kept / f"{file.stem}.parquet", records.read(kept / file.name)), before.pop(file)
    )
    check_same(root.folder, before)
    failed = root.fail(seed=0, **started("2026-01-01T00:00:00+00:00"))
    assert verified.check(records.read(failed), failed) == ""
    assert not predictions.are_there(failed.with_suffix(".parquet"), records.read(failed))
    cut(file.with_name(PACK))
    again = folders.put_aside(folders.RecordFile(failed, "records", records.read(failed)), root.folder)
    assert names(again) == []


def outcomes(source, into, **options):
    return [file.outcome for file in merge.merge([source.folder], into.folder, **options)[source.folder]]


@pytest.mark.parametrize("into_packed", [False, True])
@pytest.mark.parametrize("source_packed", [False, True])
def test_merging_from_and_into_packed_folders(root, tmp_path, source_packed, into_packed):
    source, into = root, Root(tmp_path / "into")
    for seed in (0, 1, 2):
        add(source, seed)
    add(into, 0)
    add(into, 1, right=5, **started("2026-01-01T00:00:00+00:00"))
    expected = {file.relative_to(source.folder): table for file, table in held(source.folder).items()}
    ours = held(into.folder)[into.folder / AT / "lora-0a1b2c3d-seed1.json"]
    for folder in [source] * source_packed + [into] * into_packed:
        invoke(folder.folder)
    assert outcomes(source, into) == ["same", "refused", "added"]
    assert outcomes(source, into, prefer="theirs") == ["same", "replaced", "same"]
    check_same(into.folder, {into.folder / place: table for place, table in expected.items()})
    assert outcomes(source, into) == ["same"] * 3
    (kept,) = (into.folder / "replaced").rglob("*.parquet")
    assert packed.same(predictions.whole(kept), ours)
    invoke(into.folder)
    check_same(into.folder, {into.folder / place: table for place, table in expected.items()})
    assert not list((into.folder / AT).glob("lora*.parquet"))
    assert outcomes(source, into) == ["same"] * 3


def test_merging_a_record_without_predictions_over_a_packed_one(root, tmp_path):
    into = Root(tmp_path / "into")
    add(into, 0)
    invoke(into.folder)
    file = root.add(80.0, **started("2026-01-01T00:00:00+00:00"))
    assert outcomes(root, into, prefer="theirs") == ["replaced"]
    assert held(into.folder) == {}
    assert len(store.load(into.folder, pytest.fail)) == 1
    assert file.is_file()


def test_merging_tells_packed_predictions_apart(root, tmp_path):
    into = Root(tmp_path / "into")
    file = add(root, 0)
    add(into, 0)
    table = predictions.whole(file.with_suffix(".parquet"))
    changed = table.set_column(2, "prediction", pa.array(["other"] * len(table)))
    predictions.save(changed.replace_schema_metadata(table.schema.metadata), file.with_suffix(".parquet"))
    invoke(root.folder)
    invoke(into.folder)
    (found,) = merge.merge([root.folder], into.folder)[root.folder]
    assert (found.outcome, found.why) == ("refused", "other .parquet beside the same record")
    cut(root.folder / AT / PACK)
    (found,) = merge.merge([root.folder], into.folder)[root.folder]
    assert (found.outcome, found.what.startswith(str(root.folder / AT / PACK))) == ("broken", True)


def test_nothing_is_written_over_a_pack(root):
    add(root, 0)
    invoke(root.folder)
    with pytest.raises(UserError, match=f"{PACK}: is a record, or lies beside one"):
        records.check_out(root.folder / AT / PACK)


def test_a_pack_is_read_once_however_many_runs_it_has(root, monkeypatch):
    for seed in range(4):
        add(root, seed)
    invoke(root.folder)
    packed._read.cache_clear()
    reads, real = [], packed.read
    monkeypatch.setattr(packed, "read", lambda file: reads.append(file) or real(file))
    assert len(store.load(root.folder, pytest.fail)) == 4
    assert len(store.load(root.folder, pytest.fail)) == 4
    assert reads == [root.folder / AT / PACK]
    add(root, 5)
    invoke(root.folder)
    assert len(store.load(root.folder, pytest.fail)) == 5
    assert packed.of_folder(root.folder / AT).keys() >= {"lora-0a1b2c3d-seed5"}


def test_folders_that_cannot_be_packed_are_one_line(tmp_path):
    done = CliRunner().invoke(app, ["pack", str(tmp_path / "none")])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert Path(tmp_path / "none").name in done.stderr
    (tmp_path / "empty").mkdir()
    assert "0" in invoke(tmp_path / "empty")
    (tmp_path / "empty" / "a.json").write_text(json.dumps({}))
    assert f"left: {tmp_path / 'empty' / 'a.json'}: field" in invoke(tmp_path / "empty", status=1)


def test_what_is_packed_while_it_is_looked_for_is_found(root, monkeypatch):
    file, real = add(root, 0), parquet.ParquetFile
    before = held(root.folder)

    def late(source, *args, **kwargs):
        if source == file.with_suffix(".parquet"):
            monkeypatch.undo()
            invoke(root.folder)
        return real(source, *args, **kwargs)

    monkeypatch.setattr(parquet, "ParquetFile", late)
    assert packed.same(predictions.whole(file.with_suffix(".parquet")), before[file])
    assert names(file.parent) == [PACK]


def test_a_pack_whose_runs_disagree_is_named(root, monkeypatch):
    """Which no `vltune pack` wrote: one column of two types."""
    file = add(root, 0, columns=NLVR2.columns)
    table = predictions.whole(file.with_suffix(".parquet"))
    other = table.cast(table.schema.set(4, pa.field("sentence", pa.string())))
    odd = {name: packed.PackedRun(file, name, "2025", each.schema, each) for name, each in (("a", table), ("b", other))}
    monkeypatch.setattr(packed, "of_folder", lambda folder: odd)
    file.with_name(PACK).touch()
    told = invoke(root.folder, status=1)
    assert f"left: {file.with_name(PACK)}: holds what no pack can (column sentence holds string" in told
    assert file.with_suffix(".parquet").is_file()
