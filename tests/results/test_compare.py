"""Two folders of records side by side, through the command and through what it is made of."""

import csv
import json
import math
import shutil

import pytest
from fabricated import Root
from typer.testing import CliRunner

from vltune.cli import app
from vltune.engine.artifacts import write_predictions
from vltune.records import record as records
from vltune.results.compare.match import compare, differences, failures
from vltune.tasks.task import RowColumn

MACHINE = {"cpu": "AMD EPYC", "cores": 2, "gpus": [], "platform": "Linux", "memory_bytes": 2**34}


@pytest.fixture
def a(tmp_path):
    return Root(tmp_path / "a")


@pytest.fixture
def b(tmp_path):
    return Root(tmp_path / "b")


def invoke(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env={"COLUMNS": "120"})


def compared(a, b):
    return compare(a.folder, b.folder)


def only_row(a, b):
    (row,) = compared(a, b).rows
    return row


def provenance(**fields):
    made = {"commit": "1" * 40, "dirty": False, "packages": {"torch": "2.8.0"}, "hardware": MACHINE}
    return made | {"precision": "32-true", "started": "2025-01-01T00:00:00+00:00", "seconds": 1.0} | fields


def predict(file, **splits):
    """Predictions beside a record, that give its score: {split: [(id, prediction)]}."""
    record = records.read(file)
    score = record["metrics"]["test"]["vqa_score"] / 100
    rows = {
        split: [{"id": id, "prediction": said, "score": score} for id, said in found] for split, found in splits.items()
    }
    write_predictions(file.with_suffix(".parquet"), rows, record)


def test_scores_are_means_over_the_seeds_that_finished_in_both(a, b):
    for seed, scores in enumerate([(60.0, 61.0), (62.0, 65.0), (10.0, None), (None, 20.0)]):
        for root, score in zip((a, b), scores, strict=True):
            if score is None:
                root.fail(seed=seed)
            else:
                root.add(score, seed=seed)
    found = compared(a, b)
    (row,) = found.rows
    score = row.scores["test.vqa_score"]
    assert (score.a, score.b, score.difference, score.n) == (61.0, 63.0, 2.0, 2)
    assert set(found.statuses) == {
        "vilt_mini vqa-shapes lora-0a1b2c3d, seed 2: finished -> failed",
        "vilt_mini vqa-shapes lora-0a1b2c3d, seed 3: failed -> finished",
    }
    shown = invoke(a.folder, b.folder).output
    # Differences of 1 and 3 points: t = 2 with one degree of freedom, 1 - 2 atan(2) / pi.
    assert "61.00 63.00 +2.00     2    — —   0.295" in shown
    assert "p seeds: that other seeds would too" in " ".join(shown.split())
    assert "p seeds: that" not in invoke(a.folder, a.folder).output


def test_briefly_how_far_two_folders_are_apart_and_whether_that_is_expected(a, b):
    assert invoke(a.folder, b.folder, "--brief").exit_code == 2
    intel = provenance(hardware=MACHINE | {"cpu": "Intel Xeon"})
    predict(a.add(60.0, provenance=provenance()), test=[(i, "yes") for i in range(10)])
    predict(b.add(60.0 + 1e-12, provenance=intel), test=[(i, "yes") for i in range(10)])
    assert invoke(a.folder, b.folder, "--brief").output == "finished in both: 1; with equal scores: 1\n"
    predict(a.add(60.0, seed=1, provenance=provenance()), test=[(i, "yes") for i in range(10)])
    predict(b.add(60.93, seed=1, provenance=intel), test=[(i, "yes" if i else "no") for i in range(10)])
    a.add(60.0, seed=2)
    b.fail(seed=2)
    told, why = invoke(a.folder, b.folder, "--brief").output.splitlines()
    assert told == (
        "finished in both: 2; with equal scores: 1; predictions the same: 95.0 to 95.0 % of a row's; "
        "scores apart: up to 0.93 points"
    )
    assert why.startswith(
        "AMD EPYC here, Intel Xeon there: each kind of processor rounds otherwise, which moves scores"
    )
    told, why = invoke(b.folder, b.folder, "--brief").output, None
    assert told == "finished in both: 2; with equal scores: 2\n"


@pytest.mark.parametrize(
    ("kernels", "hash_", "told"),
    [
        ("portable", "0a1b2c3d", "both on portable arithmetic: other code, versions or settings"),
        ("AVX2", "ffffffff", "AMD EPYC here, Intel Xeon there, and other settings"),
    ],
)
def test_what_no_processor_explains_is_not_expected(a, b, kernels, hash_, told):
    intel = provenance(hardware=MACHINE | {"cpu": "Intel Xeon"}, kernels=kernels)
    a.add(60.0, provenance=provenance(kernels=kernels))
    b.add(61.0, provenance=intel, hash=hash_)
    assert invoke(a.folder, b.folder, "--brief").output.splitlines()[1].startswith(f"{told}; the whole comparison says")


def test_the_first_known_metric_is_shown_and_the_test_split_before_val(a, b):
    metrics = {"val": {"r1": 1.0}, "test": {"ir_r1": 50.0, "r1": 40.0}}
    for root in (a, b):
        root.add(task="retrieval", metrics=metrics)
        root.add(task="own", metrics={"val": {"odd": 3.0}, "test": None})
    assert [row.shown for row in compared(a, b).rows] == ["val.odd", "test.r1"]


def test_of_pictures_no_prediction_is_the_same(a, b):
    """What is predicted there is the prompt; pictures lie elsewhere."""
    for root in (a, b):
        file = root.add(60.0)
        (picture := file.with_suffix("") / "test" / "0.png").parent.mkdir(parents=True)
        picture.touch()
        row = {"id": 0, "prediction": "a red star", "picture": "test/0.png", "score": 0.6}
        columns = [RowColumn("picture", "image")]
        write_predictions(file.with_suffix(".parquet"), {"test": [row]}, records.read(file), columns)
    assert only_row(a, b).predictions is None


def test_what_is_in_one_only_is_named(a, b):
    for seed in (0, 1, 10):
        a.add(seed=seed)
    b.add(seed=1)
    b.fail(method="apt", status="interrupted", error=None)
    found = compared(a, b)
    assert found.only_a == ("vilt_mini vqa-shapes lora-0a1b2c3d, seed 0, 10",)
    assert found.only_b == ("vilt_mini vqa-shapes apt-0a1b2c3d, seed 0, 1 interrupted",)


def test_other_hashes_are_paired_with_the_nearest_configuration(a, b):
    def config(rate, clip, **engine):
        return {"method": {"rank": 4}, "engine": {"lr": rate, "clip": clip, "workers": 0, **engine}}

    a.add(60.0, hash="aaaaaaaa", config=config(0.1, None))
    a.add(50.0, hash="bbbbbbbb", config=config(0.2, None))
    b.add(61.0, hash="cccccccc", config=config(0.1, 1.0, workers=4))
    b.add(52.0, hash="dddddddd", config=config(0.2, 1.0))
    found = {row.hashes: row for row in compared(a, b).rows}
    assert set(found) == {("aaaaaaaa", "cccccccc"), ("bbbbbbbb", "dddddddd")}
    # What does not decide the result is no difference of configurations, but says how the times came about.
    assert {row.settings for row in found.values()} == {("engine.clip: null -> 1",)}
    assert [(c.name, c.a, c.b, c.count) for c in compared(a, b).provenance] == [("engine.workers", "0", "4", 1)]
    shown = invoke(a.folder, b.folder).output
    assert (
        "vilt_mini vqa-shapes lora-aaaaaaaa/cccccccc, vilt_mini vqa-shapes lora-bbbbbbbb/dddddddd: engine.clip" in shown
    )


def test_equal_hashes_stay_together_and_a_seed_less_configuration_is_no_pair(a, b):
    a.add(seed=0, hash="aaaaaaaa", config={"engine": {"lr": 1}})
    a.add(seed=1, hash="bbbbbbbb", config={"engine": {"lr": 2}})
    b.add(seed=1, hash="aaaaaaaa", config={"engine": {"lr": 1}})
    b.add(seed=0, hash="cccccccc", config={"engine": {"lr": 1}})
    found = compared(a, b)
    assert not found.rows
    assert len(found.only_a) == len(found.only_b) == 2


def test_of_equally_near_configurations_the_one_with_more_common_seeds_is_taken(a, b):
    for seed in (0, 1):
        a.add(seed=seed, hash="aaaaaaaa", config={"engine": {"lr": 1}})
        b.add(seed=seed, hash="dddddddd", config={"engine": {"lr": 2}})
    b.add(hash="cccccccc", config={"engine": {"lr": 3}})
    assert only_row(a, b).hashes == ("aaaaaaaa", "dddddddd")


def test_other_data_is_told_where_all_settings_agree(a, b):
    a.add(hash="aaaaaaaa")
    b.add(hash="bbbbbbbb")
    assert only_row(a, b).settings == ()
    assert "lora-aaaaaaaa/bbbbbbbb: all settings agree: other data" in invoke(a.folder, b.folder).output


def test_differences_are_short():
    one = {"lr": 1, "name": "x", "tower": {"width": 2, "heads": 3}, "roles": ["q", "v"]}
    other = {"lr": 2, "name": "x", "roles": ["q"], "path": "p" * 100}
    assert list(differences(one, other)) == [
        "lr: 1 -> 2",
        f"path: absent -> {'p' * 57}...",
        'roles: ["q", "v"] -> ["q"]',
        'tower: {"width": 2, "heads": 3} -> absent',
    ]
    assert list(differences(one, one)) == []
    assert list(differences({"a": {"b": 0}}, {"a": {"b": None}})) == ["a.b: 0 -> null"]


@pytest.mark.parametrize(
    ("one", "other", "common", "same", "alone", "shown"),
    [
        ([(1, "a"), (2, "b")], [(1, "a"), (2, "b")], 2, 2, 0, "identical"),
        ([(1, "a"), (2, "b")], [(1, "a"), (2, "c")], 2, 1, 0, "50.00 %"),
        ([(1, "a"), (2, "b")], [(2, "b"), (1, "a")], 2, 2, 0, "identical"),
        ([(1, "a"), (2, "b")], [(2, "b")], 1, 1, 1, "100 % of 1"),
        # In retrieval an id is a caption's and an image's: they are told apart by their order.
        ([(1, "image 1"), (1, "caption 5")], [(1, "image 1"), (1, "caption 6")], 2, 1, 0, "50.00 %"),
        ([(1, "image 1"), (2, "image 2"), (1, "caption 5")], [(1, "image 1"), (1, "caption 5")], 2, 2, 1, "100 % of 2"),
        ([(1, "a")], [(2, "a")], 0, 0, 2, "none common"),
    ],
)
def test_predictions_example_by_example(a, b, one, other, common, same, alone, shown):
    for root, said in ((a, one), (b, other)):
        predict(root.add(), test=said)
    found = only_row(a, b).predictions
    assert (found.common, found.same, found.alone) == (common, same, alone)
    assert shown in invoke(a.folder, b.folder).output


def test_an_id_of_another_split_is_another_example(a, b):
    predict(a.add(), val=[(1, "a")], test=[(1, "b")])
    predict(b.add(), val=[(1, "b")], test=[(1, "b")])
    found = only_row(a, b).predictions
    assert (found.common, found.same) == (2, 1)
    predict(b.add(), val=[(1, "a"), (1, "b")])
    found = only_row(a, b).predictions
    assert (found.common, found.same, found.alone) == (1, 1, 2)


def test_predictions_that_are_missing_or_broken(a, b):
    predict(a.add(), test=[(1, "a")])
    file = b.add()
    assert only_row(a, b).predictions is None
    file.with_suffix(".parquet").write_bytes(b"PAR1")
    found = compared(a, b)
    assert found.rows[0].predictions is None
    assert found.broken[0].startswith(f"{file.with_suffix('.parquet')}: no file of predictions")


def test_costs_exactly_and_times_as_ratios_on_one_machine(a, b):
    def cost(milliseconds, params):
        return {
            "method_params": params,
            "train_step_ms": {"median": milliseconds, "p95": 9.0},
            "latency_ms": None,
            "provenance": provenance(hardware=MACHINE | {"memory_bytes": int(milliseconds), "platform": "any"}),
        }

    for seed, (one, other) in enumerate([(10.0, 20.0), (10.0, 30.0), (10.0, 70.0)]):
        a.add(seed=seed, **cost(one, 1000))
        b.add(seed=seed, **cost(other, 1100))
    row = only_row(a, b)
    assert row.ratios == {"train_step_ms.median": 3.0}
    assert row.costs == {"method_params": (1000, 1100)}
    shown = invoke(a.folder, b.folder).output
    assert "\u00d73.00" in shown
    assert "lora-0a1b2c3d: method_params: 1,000 -> 1,100 (+10.0 %)" in shown


def test_times_of_other_machines_are_not_compared(a, b):
    times = {"latency_ms": {"median": 1.0, "p95": 1.0}}
    a.add(**times, provenance=provenance())
    for hardware in (MACHINE | {"cores": 8}, MACHINE | {"gpus": ["H100"]}, {"cores": 2}):
        b.add(**times, provenance=provenance(hardware=hardware))
        assert only_row(a, b).ratios == {}
    told = " ".join(invoke(a.folder, b.folder).output.split())
    assert "Times of 1 of 1 runs are not compared: other or unknown hardware." in told
    b.add(**times, provenance=provenance())
    assert only_row(a, b).ratios == {"latency_ms.median": 1.0}
    for root in (a, b):
        root.add(**times, provenance=provenance(hardware={"cores": 2}))
    assert only_row(a, b).ratios == {}


def test_where_the_runs_come_from_in_a_line_each(a, b):
    for seed in range(3):
        a.add(seed=seed, provenance=provenance())
        changed = provenance(
            commit="2" * 40, dirty=seed == 0, packages={"torch": "2.9.0"}, hardware=MACHINE | {"cores": 4}
        )
        b.add(seed=seed, provenance=changed | {"precision": "bf16-mixed"})
    shown = invoke(a.folder, b.folder).output
    heading = "Other code, versions or machine (in how many of 3 pairs):\n"
    assert shown.partition(heading)[2].splitlines() == [
        "commit: 11111111 -> 22222222 (2)",
        "commit: 11111111 -> 22222222 and changes (1)",
        "torch: 2.8.0 -> 2.9.0 (3)",
        "cores: 2 -> 4 (3)",
        "precision: 32-true -> bf16-mixed (3)",
    ]


def test_other_judges_are_told(a, b):
    for root, judge in ((a, "one"), (b, "another")):
        root.add(judges={"dino": judge, "clip_i": "the same"})
    assert [(c.name, c.a, c.b, c.count) for c in compared(a, b).provenance] == [("judges.dino", "one", "another", 1)]


def test_costs_without_a_run_are_compared_but_have_no_score(a, b):
    a.add(kind="costs", additional_macs=5, metrics={"val": None, "test": None})
    b.add(kind="costs", additional_macs=6, metrics={"val": None, "test": None}, seed=7)
    shown = invoke(a.folder, b.folder).output
    assert "Costs without a run (mode=cost) in both: 1." in shown
    assert "lora-0a1b2c3d (mode=cost): additional_macs: 5 -> 6 (+20.0 %)" in shown
    assert "latency" not in shown.partition("A:")[0]


def test_costs_in_both_do_not_stand_for_runs_in_one(a, b):
    for root in (a, b):
        root.add(kind="costs", metrics={"val": None, "test": None})
    assert failures(compared(a, b), 0.0) == []
    a.add(60.0)
    assert failures(compared(a, b), 0.0) == failures(compared(b, a), 0.0) == ["no run finished in both"]
    b.add(60.0)
    assert failures(compared(a, b), 0.0) == []


def test_any_folder_of_records_will_do(a, b, tmp_path):
    a.add(60.0, seed=1)
    a.add(kind="costs")
    (tmp_path / "loose").mkdir()
    for file in a.folder.rglob("*.json"):
        shutil.copy(file, tmp_path / "loose")
    found = compare(a.folder / "records", tmp_path / "loose")
    assert [row.kind for row in found.rows] == ["records"]
    assert [row.kind for row in compare(a.folder, tmp_path / "loose").rows] == ["records", "costs"]


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("early.json", "late.json", "started later"),
        ("late.json", "early.json", "started later"),  # by the clock of one zone, not by the letters of the text
        ("lora-0a1b2c3d-seed0.json", "copy.json", "lies where its identity belongs"),
        ("one.json", "other.json", "comes first"),
    ],
)
def test_of_two_records_of_one_run_one_is_compared_and_the_other_named(a, b, tmp_path, one, other, why):
    started = {
        "early": "2025-01-01T12:00:00+00:00",
        "late": "2025-01-01T11:30:00-01:00",
        "copy": "2026-01-01T00:00:00Z",
    }
    a.add(60.0)
    folder = tmp_path / "moved"
    folder.mkdir()
    for name, score in ((one, 10.0), (other, 61.0)):
        when = started.get(name.partition(".")[0], "2025-01-01T00:00:00+00:00")
        b.add(score, provenance=provenance(started=when)).rename(folder / name)
    for name in (one, other):
        (folder / name).rename(b.folder / "records/vilt_mini/vqa-shapes" / name)
    found = compared(a, b)
    used, left = (one, other) if "late" not in other else (other, one)
    place = b.folder / "records/vilt_mini/vqa-shapes"
    assert found.rows[0].scores["test.vqa_score"].b == (10.0 if used == one else 61.0)
    assert found.notes == (
        f"{place / left} is a record of the same run as {place / used}, which {why} and is compared",
    )


def test_status_for_scripts(a, b):
    for seed, (one, other) in enumerate([(60.0, 60.1), (60.0, 60.0)]):
        a.add(one, seed=seed)
        b.add(other, seed=seed)
    assert invoke(a.folder, b.folder).exit_code == 0
    assert invoke(a.folder, a.folder, "--fail-on-difference").exit_code == 0
    done = invoke(a.folder, b.folder, "--fail-on-difference")
    assert done.exit_code == 1
    assert done.stderr == "differs: vilt_mini vqa-shapes lora-0a1b2c3d, seed 0: test.vqa_score 60.00 -> 60.10 (+0.1)\n"
    assert invoke(a.folder, b.folder, "--tolerance", 0.1).exit_code == 0
    assert invoke(a.folder, b.folder, "--tolerance", 0.09).exit_code == 1
    assert invoke(a.folder, b.folder, "--tolerance", 0).exit_code == 1
    done = invoke(a.folder, b.folder, "--tolerance", "inf")
    assert (done.exit_code, done.stderr) == (2, "error: --tolerance=inf: must be a finite number\n")


def test_a_run_that_finished_in_one_alone_is_a_failure_too(a, b):
    a.add(60.0)
    b.fail()
    assert failures(compared(a, b), 100.0) == [
        "vilt_mini vqa-shapes lora-0a1b2c3d, seed 0: finished -> failed",
        "no run finished in both",
    ]
    b.add(metrics={"val": {"vqa_score": 1.0}, "test": None})
    assert failures(compared(a, b), 100.0) == [
        "vilt_mini vqa-shapes lora-0a1b2c3d, seed 0: test.vqa_score is in A only",
        "vilt_mini vqa-shapes lora-0a1b2c3d, seed 0: val.vqa_score is in B only",
    ]


def test_files(a, b, tmp_path):
    for seed in (0, 1):
        a.add(60.0, seed=seed)
        b.add(61.0 + seed, seed=seed)
    for name in ("out.md", "out.csv", "out.json"):
        assert invoke(a.folder, b.folder, "--out", tmp_path / name).exit_code == 0
    markdown = (tmp_path / "out.md").read_text()
    assert "| vqa-shapes | lora | vqa_score | 60.00 | 61.50 | +1.50 | 2 | — |" in markdown
    (line,) = csv.DictReader((tmp_path / "out.csv").open())
    assert (line["score"], line["a"], line["b"], line["difference"], line["seeds"]) == (
        "test.vqa_score",
        "60.0",
        "61.5",
        "1.5",
        "2",
    )
    chance = 1 - 2 / math.pi * math.atan(3)  # Student's t = 3 with one degree of freedom
    assert (line["p_examples"], float(line["p_seeds"])) == ("", pytest.approx(chance, rel=1e-5))
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["rows"][0]["scores"] == {"test.vqa_score": {"a": 60.0, "b": 61.5, "difference": 1.5, "n": 2}}
    assert found["rows"][0]["p"] == {"examples": None, "seeds": pytest.approx(chance)}
    assert json.loads(invoke(a.folder, b.folder, "--format", "json").stdout) == found
    invoke(a.folder, b.folder, "--format", "csv", "--out", tmp_path / "any.txt")
    assert (tmp_path / "any.txt").read_text() == (tmp_path / "out.csv").read_text()


def test_every_line_of_a_real_comparison_fits(a, b):
    def lines(task, metrics):
        for root, score in ((a, 0.0), (b, 100.0)):
            for digest in ("aaaaaaaa", "bbbbbbbb"):
                root.add(method="classifier_only", task=task, hash=digest, metrics=metrics(score))
        return invoke(a.folder, b.folder).output.splitlines()

    (shown,) = [line for line in lines("retrieval", lambda r1: {"val": None, "test": {"r1": r1}}) if "aaaaaaaa" in line]
    assert " ".join(shown.split()) == "retrieval-shapes classifier_only aaaaaaaa r1 0.00 100.00 +100.00 1 — — — — —"
    assert max(map(len, lines("pretraining", lambda score: {"val": {"match_accuracy": score}, "test": None}))) <= 120


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: None, "b: no such folder: give one of results, or one that holds records"),
        (lambda folder: folder.mkdir(), "b: holds no records: give a folder of results, or one that holds records"),
        (lambda folder: folder.write_text("{}"), "b: a file, no folder: give one of results"),
    ],
)
def test_a_folder_without_records(a, tmp_path, prepare, said):
    a.add()
    prepare(tmp_path / "b")
    done = invoke(a.folder, tmp_path / "b")
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_broken_files_are_named_and_the_rest_is_compared(a, b):
    a.add()
    file = b.add()
    file.with_name("half.json").write_text("{")
    assert compared(a, b).broken[0].startswith(f"{file.with_name('half.json')}: broken JSON")
    file.unlink()
    done = invoke(a.folder, b.folder)
    assert done.exit_code == 2
    assert f"{b.folder}: holds no valid record among 1 files, such as {file.with_name('half.json')}" in done.stderr


def test_a_folder_that_holds_a_broken_file_is_not_the_same(a, b):
    a.add()
    file = b.add()
    assert invoke(a.folder, b.folder, "--fail-on-difference").exit_code == 0
    file.with_name("half.json").write_text("{")
    assert invoke(a.folder, b.folder).exit_code == 0
    done = invoke(a.folder, b.folder, "--fail-on-difference")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"differs: cannot be used: {file.with_name('half.json')}: broken JSON")


def test_a_score_that_its_predictions_contradict_is_named_and_not_compared(a, b):
    for root in (a, b):
        for seed in (0, 1):
            predict(root.add(60.0, seed=seed), test=[(1, "a")])
    (b.folder / "records/vilt_mini/vqa-shapes/lora-0a1b2c3d-seed1.parquet").rename(b.folder / "kept")
    file = b.add(77.2, seed=1)
    (b.folder / "kept").rename(file.with_suffix(".parquet"))
    found = compared(a, b)
    assert found.rows[0].scores["test.vqa_score"].difference == 0.0
    assert found.only_a == ("vilt_mini vqa-shapes lora-0a1b2c3d, seed 1",)
    assert found.broken == (
        f"{file}: field 'metrics.test.vqa_score' is 77.20, its predictions give 60.00: restore what was changed, or run "
        "again with force=true",
    )


def test_a_folder_beside_itself(a):
    predict(a.add(60.0), test=[(1, "a")])
    found = compared(a, a)
    assert failures(found, 0.0) == []
    assert (found.notes, found.broken, found.only_a, found.only_b) == ((), (), (), ())
    assert found.rows[0].predictions.identical


def test_folders_of_results_in_one_are_named(a, b):
    a.add(60.0)
    b.add(60.0)
    Root(b.folder / "low_data").add(10.0)
    told = f"{b.folder}: records of their own lie in low_data, and are not compared: give each by itself"
    assert compared(a, b).notes == (told,)


def test_an_unknown_format_is_refused_before_anything_is_read(a, b):
    done = invoke(a.folder, b.folder, "--out", "x.xlsx")
    assert (done.exit_code, done.stderr) == (2, "error: format 'xlsx' is not known: use one of md, csv, json\n")


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_a_comparison_takes_no_records_place(a, b, suffix):
    file = a.add()
    b.add()
    out = file.with_suffix(suffix)
    out.touch()
    before = file.read_bytes()
    done = invoke(a.folder, b.folder, "--out", out)
    assert (done.exit_code, done.stderr) == (
        2,
        f"error: {out}: is a record, or lies beside one: name another file to write\n",
    )
    assert file.read_bytes() == before
