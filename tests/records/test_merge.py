"""Records from elsewhere into a folder of results, through the command."""

import json

import pytest
from fabricated import Root, fabricate
from safetensors.numpy import save_file
from typer.testing import CliRunner

from vltune.cli import app
from vltune.engine.artifacts import write_predictions
from vltune.records import merge as merging
from vltune.records import record as records
from vltune.records import store

HOME = "records/vilt_mini/vqa-shapes/lora-0a1b2c3d-seed0.json"
ENTRY = {"run": "lora-0a1b2c3d-seed0", "metric": "vqa_test_dev", "value": 70.0, "source": "EvalAI", "by": "A. N. Other"}


@pytest.fixture
def source(tmp_path):
    return Root(tmp_path / "source")


@pytest.fixture
def into(tmp_path):
    return Root(tmp_path / "into")


def invoke(*sources, into, options=()):
    arguments = [*sources, "--into", into.folder, *options]
    return CliRunner().invoke(app, ["merge", *map(str, arguments)], env={"COLUMNS": "120"})


def outcomes(*sources, into, **options):
    merged = merging.merge([source.folder for source in sources], into.folder, **options)
    return [file.outcome for files in merged.values() for file in files]


def score(root):
    return records.read(root.folder / HOME)["metrics"]["test"]["vqa_score"]


def predict(file, said="a"):
    write_predictions(
        file.with_suffix(".parquet"), {"test": [{"id": 1, "prediction": said, "score": 0.6}]}, records.read(file)
    )


def started(when, **fields):
    return {"provenance": fabricate()["provenance"] | {"started": when}, **fields}


def content(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_new_records_come_with_what_lies_beside_them(source, into):
    file = source.add(seed=3)
    predict(file)
    save_file({}, file.with_suffix(".safetensors"))
    file.with_suffix(".log").write_text("not a part of a record")
    source.add(kind="costs")
    assert outcomes(source, into=into) == ["added", "added"]
    file.with_suffix(".log").unlink()
    assert content(into.folder) == content(source.folder)
    assert [store.is_cost(record) for record in store.load(into.folder)] == [False, True]
    assert outcomes(source, into=into) == ["same", "same"]


def test_a_record_goes_to_the_place_of_its_identity(source, into):
    source.add(60.0).rename(source.folder / "copy of lora.json")
    source.add(kind="costs").rename(source.folder / "lora-0a1b2c3d.json")
    for folder in ("records", "costs"):
        for below in sorted((source.folder / folder).rglob("*"), reverse=True):
            below.rmdir()
        (source.folder / folder).rmdir()
    assert outcomes(source, into=into) == ["added", "added"]
    assert sorted(content(into.folder)) == ["costs/vilt_mini/vqa-shapes/lora-0a1b2c3d.json", HOME]


def test_what_lacks_beside_the_same_record_is_added(source, into):
    into.add()
    predict(source.add())
    told = invoke(source.folder, into=into)
    assert f"added: {HOME} (.parquet beside the same record)" in told.output
    assert (into.folder / HOME).with_suffix(".parquet").is_file()
    assert outcomes(source, into=into) == ["same"]


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_a_finished_record_beats_one_that_is_not(source, into, status):
    into.fail(status=status, error="boom" if status == "failed" else None)
    source.add(61.0)
    told = invoke(source.folder, into=into)
    assert f"replaced: {HOME} (other content, {status} here and finished there)" in told.output
    assert score(into) == 61.0
    # The other way round nothing moves, whatever is preferred.
    back = invoke(into.folder / "replaced", into=source, options=["--prefer", "theirs"])
    assert f"refused: {HOME} (other content, finished here and {status} there)" in back.output
    assert score(source) == 61.0


def test_of_two_finished_records_the_one_that_is_there_stays(source, into):
    into.add(60.0)
    source.add(61.0)
    told = invoke(source.folder, into=into)
    assert told.exit_code == 0
    assert f"refused: {HOME} (other content, finished here and finished there)" in told.output
    assert score(into) == 60.0
    assert not (into.folder / "replaced").exists()


def test_theirs_takes_the_place_and_ours_is_kept_aside(source, into):
    ours = into.add(60.0)
    predict(ours)
    save_file({}, ours.with_suffix(".safetensors"))
    before = content(ours.parent)
    source.add(61.0)
    assert outcomes(source, into=into, prefer="theirs") == ["replaced"]
    assert score(into) == 61.0
    # Nothing of the old run stays beside the new record, which has no predictions.
    assert content(ours.parent).keys() == {ours.name}
    aside = into.folder / "replaced/vilt_mini/vqa-shapes/lora-0a1b2c3d-seed0.2025-01-01T000000+0000"
    assert content(aside) == before
    assert len(store.load(into.folder)) == 1
    source.add(62.0)
    assert outcomes(source, into=into, prefer="theirs") == ["replaced"]
    kept = [records.read(file)["metrics"]["test"]["vqa_score"] for file in into.folder.rglob("replaced/**/*.json")]
    assert sorted(kept) == [60.0, 61.0]


@pytest.mark.parametrize(
    ("theirs", "outcome"),
    [
        ("2025-01-02T00:00:00+00:00", "replaced"),
        ("2024-12-31T23:00:00-02:00", "replaced"),
        ("2025-01-01T00:00:01Z", "replaced"),
        ("2025-01-01T00:00:00", "refused"),
        ("2025-01-01T01:00:00+02:00", "refused"),
        ("yesterday", "broken"),
    ],
)
def test_the_newer_one_started_later(source, into, theirs, outcome):
    into.add(60.0, **started("2025-01-01T00:00:00+00:00"))
    file = source.add(61.0)
    file.write_text(file.read_text().replace(fabricate()["provenance"]["started"], theirs))
    assert outcomes(source, into=into, prefer="newer") == [outcome]
    assert score(into) == (61.0 if outcome == "replaced" else 60.0)


def test_other_predictions_beside_the_same_record_are_a_conflict(source, into):
    predict(into.add(), "a")
    predict(source.add(), "b")
    told = invoke(source.folder, into=into)
    assert f"refused: {HOME} (other .parquet beside the same record)" in told.output
    assert outcomes(source, into=into, prefer="theirs") == ["replaced"]
    assert (into.folder / HOME).with_suffix(".parquet").read_bytes() == (
        (source.folder / HOME).with_suffix(".parquet").read_bytes()
    )


def moved(file, name):
    """A record and what lies beside it, under another name."""
    for suffix in (".parquet", ".json"):
        if file.with_suffix(suffix).exists():
            file.with_suffix(suffix).rename(file.with_name(name).with_suffix(suffix))
    return file.with_name(name)


@pytest.mark.parametrize("name", ["a copy.json", "zz copy.json"])
@pytest.mark.parametrize("prefer", [None, "newer", "theirs"])
def test_of_two_records_of_one_run_that_at_its_place_is_taken(source, into, name, prefer):
    copy = moved(source.add(99.0, **started("2026-01-01T00:00:00+00:00")), name)
    file = source.add(60.0)
    predict(file)
    merged = merging.merge([source.folder], into.folder, prefer)[source.folder]
    assert [(each.outcome, each.what, each.why) for each in merged] == [
        ("added", HOME, ""),
        ("refused", HOME, f"{copy} is of the same run as {file}, which is taken"),
    ]
    assert score(into) == 60.0
    assert sorted(content(into.folder)) == [HOME, HOME.replace(".json", ".parquet")]
    again = merging.merge([source.folder], into.folder, prefer)[source.folder]
    assert [each.outcome for each in again] == ["same", "refused"]


def test_a_copy_under_another_name_is_the_same(source, into):
    predict(source.add())
    for suffix in (".json", ".parquet"):
        file = source.folder / HOME.replace(".json", suffix)
        file.with_name(f"copy{suffix}").write_bytes(file.read_bytes())
    assert outcomes(source, into=into) == ["added", "same"]
    assert sorted(content(into.folder)) == [HOME, HOME.replace(".json", ".parquet")]


def test_a_finished_record_is_taken_wherever_it_lies(source, into):
    moved(source.add(60.0), "copy.json")
    source.fail(status="running", error=None)
    assert outcomes(source, into=into) == ["added", "refused"]
    assert score(into) == 60.0


def test_records_of_one_run_of_which_none_lies_at_its_place_are_refused_where_they_differ(source, into):
    files = [moved(source.add(value), f"copy {value:.0f}.json") for value in (60.0, 61.0)]
    (refused,) = merging.merge([source.folder], into.folder)[source.folder]
    names = ", ".join(map(str, files))
    assert (refused.outcome, refused.why) == ("refused", f"{names} are records of one run and differ: keep one of them")
    assert not into.folder.exists()


def test_a_score_that_its_predictions_contradict_is_not_merged(source, into):
    predict(source.add(60.0))
    predict(source.add(60.0, seed=1))
    file = source.add(0.6)
    told = invoke(source.folder, into=into)
    assert told.exit_code == 1
    assert f"broken: {file}: field 'metrics.test.vqa_score' is 0.60, its predictions give 60.00" in told.output
    assert sorted(content(into.folder)) == [HOME.replace("seed0", "seed1"), HOME.replace("seed0.json", "seed1.parquet")]


def test_a_contradicted_record_in_the_way_is_left_and_named(source, into):
    predict(into.add(60.0))
    into.add(99.0)
    predict(source.add(60.0))
    told = invoke(source.folder, into=into, options=["--prefer", "theirs"])
    assert told.exit_code == 1
    assert f"broken: {into.folder / HOME}: field 'metrics.test.vqa_score' is 99.00" in told.output
    assert score(into) == 99.0


def test_a_source_that_is_given_twice_is_merged_once(source, into, tmp_path):
    source.add()
    (tmp_path / "again").symlink_to(source.folder)
    assert outcomes(source, source, into=into) == ["added"]
    assert outcomes(source, Root(tmp_path / "again"), into=into) == ["same", "same"]


def test_a_source_that_holds_the_folder_merged_into(tmp_path):
    into, theirs = Root(tmp_path / "all" / "into"), Root(tmp_path / "all" / "theirs")
    into.add(60.0)
    theirs.add(61.0, seed=1)
    assert outcomes(Root(tmp_path / "all"), into=into) == ["added"]
    assert len(store.load(into.folder, pytest.fail)) == 2


def test_folders_of_results_in_a_source_are_named(source, into):
    source.add()
    Root(source.folder / "low_data").add()
    told = " ".join(invoke(source.folder, into=into).output.split())
    low = source.folder / "low_data"
    assert f"left: {low} (holds records of its own: vltune merge {low} --into {into.folder / 'low_data'})" in told


def cut(file):
    file.write_bytes(file.read_bytes()[:-20])


def test_broken_files_are_named_and_the_rest_is_merged(source, into):
    files = [source.add(seed=seed) for seed in range(6)]
    cut(files[0])
    predict(files[1])
    cut(files[1].with_suffix(".parquet"))
    predict(files[2])
    files[2].with_suffix(".parquet").rename(files[3].with_suffix(".parquet"))
    files[4].with_suffix(".safetensors").write_bytes(b"\x00" * 100)
    lfs = b"version https://git-lfs.github.com/spec/v1\n"
    for suffix in (".parquet", ".safetensors"):
        source.add(seed=6 + len(suffix)).with_suffix(suffix).write_bytes(lfs)
    told = invoke(source.folder, into=into)
    assert told.exit_code == 1
    for said in (
        f"broken: {files[0]}: broken JSON",
        f"broken: {files[1].with_suffix('.parquet')}: no file of predictions",
        f"broken: {files[3].with_suffix('.parquet')}: predictions of another run (seed 2)",
        f"broken: {files[4].with_suffix('.safetensors')}: no file of parameters",
        "seed14.parquet: no file of predictions (a Git LFS pointer, not the data itself; run `git lfs pull`",
        "seed18.safetensors: no file of parameters (a Git LFS pointer, not the data itself; run `git lfs pull`",
    ):
        assert said in told.output
    assert [record["identity"]["seed"] for record in store.load(into.folder)] == [2, 5]


def test_a_broken_file_in_the_way_is_left(source, into):
    into.add().write_text("{")
    source.add()
    told = invoke(source.folder, into=into)
    assert told.exit_code == 1
    assert f"broken: {into.folder / HOME}: broken JSON" in told.output
    assert (into.folder / HOME).read_text() == "{"


def test_a_dry_run_says_the_same_and_writes_nothing(source, into, tmp_path):
    into.add(60.0)
    source.add(61.0)
    source.add(seed=1)
    second = Root(tmp_path / "second")
    second.add(seed=1)
    second.add(62.0, seed=2)
    third = Root(tmp_path / "third")
    third.add(63.0, seed=2)
    before = content(into.folder)
    every = {"into": into, "prefer": "theirs"}
    planned = outcomes(source, second, third, dry_run=True, **every)
    assert content(into.folder) == before
    assert outcomes(source, second, third, **every) == planned == ["replaced", "added", "same", "added", "replaced"]
    told = invoke(source.folder, into=into, options=["--dry-run"])
    assert "would be merged" in told.output
    assert f"same: {HOME}" in told.output


def test_the_table_counts_by_source(source, into, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    into.add(60.0)
    source.add(61.0)
    source.add(seed=1)
    second = Root(tmp_path / "second")
    second.add(seed=1)
    told = invoke("source", "second", into=into)
    assert {words[1]: words[3::2] for line in told.output.splitlines() if len(words := line.split()) == 13} == {
        "from": ["added", "same", "replaced", "refused", "broken"],
        "source": ["1", "0", "0", "1", "0"],
        "second": ["0", "1", "0", "0", "0"],
    }


def typed(root, name, *entries):
    file = root.folder / "external" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(list(entries)))  # JSON is YAML
    return file


def test_typed_scores(source, into):
    typed(source, "new.yaml", ENTRY)
    assert outcomes(source, into=into) == ["added"]
    assert outcomes(source, into=into) == ["same"]
    assert content(into.folder) == content(source.folder)


def test_conflicts_of_typed_scores_are_named(source, into):
    there = typed(into, "a.yaml", ENTRY)
    typed(source, "a.yaml", ENTRY | {"value": 71.0})
    typed(source, "b.yaml", ENTRY | {"run": HOME})
    typed(source, "c.yaml", ENTRY | {"run": "apt-0a1b2c3d-seed0"})
    typed(source, "d.yaml", ENTRY | {"run": "apt-0a1b2c3d-seed0"})
    (source.folder / "external" / "e.yaml").write_text("run: x")
    (source.folder / "external" / "f.txt").write_text("run: x")
    typed(source, "g.yml", ENTRY | {"run": "full-0a1b2c3d-seed0"}, ENTRY | {"run": HOME.replace("lora", "full")})
    told = invoke(source.folder, into=into, options=["--prefer", "theirs"])
    assert told.exit_code == 1
    lines = told.output.splitlines()
    mine = source.folder / "external" / "a.yaml"
    assert f"refused: external/a.yaml (another file has this name: rename {mine} or merge it by hand)" in lines
    assert (
        f"refused: external/b.yaml (vqa_test_dev of lora-0a1b2c3d-seed0 was typed before, 70.0 in {there} entry 1)"
        in lines
    )
    assert any(line.startswith("refused: external/d.yaml (vqa_test_dev of apt-0a1b2c3d-seed0") for line in lines)
    assert any(line.startswith(f"broken: {source.folder}/external/e.yaml: an entry holds") for line in lines)
    assert any(line.startswith(f"broken: {source.folder}/external/f.txt: not read") for line in lines)
    twice = "vqa_test_dev of full-0a1b2c3d-seed0 was typed before"
    assert any(line.startswith(f"broken: {source.folder}/external/g.yml entry 2: {twice}") for line in lines)
    assert sorted(content(into.folder / "external")) == ["a.yaml", "c.yaml"]
    assert there.read_text() == json.dumps([ENTRY])


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["nowhere"], "nowhere: no such folder: give one of results, or one that holds records"),
        (["empty"], "empty: holds no records: give a folder of results, or one that holds records"),
        (["into/../into"], "into/../into: is the folder that is merged into: name another"),
        (["source", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_sources_that_are_none(source, into, tmp_path, monkeypatch, sources, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    into.add()
    source.add(seed=1)
    before = content(into.folder)
    done = invoke(*sources, into=into)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {said}")
    assert content(into.folder) == before


def test_an_unknown_preference(source, into):
    source.add()
    done = invoke(source.folder, into=into, options=["--prefer", "ours"])
    assert done.stderr == "error: --prefer ours: use one of newer, theirs, or leave it out to keep what is there\n"


def test_what_cannot_be_kept_aside_stays(source, into):
    into.add(60.0)
    source.add(61.0)
    (into.folder / "replaced").write_text("a file in the way")
    done = invoke(source.folder, into=into, options=["--prefer", "theirs"])
    assert done.exit_code == 2
    assert "lora-0a1b2c3d-seed0.json cannot be kept there" in done.stderr
    assert score(into) == 60.0
