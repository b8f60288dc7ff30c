"""Image classification as a user types it: few shots, base to new, another data set, a training that fails."""

import json
from pathlib import Path

import pytest
from test_run import recorded, run

IMAGES = "dataset.generate.images={train: 90, val: 60, test: 60}"
JOB = ["backbone=clip_mini", "task=classification", "task.shots=2", "engine.eval_batch_size=64", IMAGES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clip")


@pytest.fixture(scope="module")
def tuned(folder):
    """A record, and what the run printed."""
    done = run(*JOB, "method=coop", "engine.max_steps=4", *places(folder))
    return recorded(done), Path(done.stdout.splitlines()[-1].removeprefix("record: "))


def places(folder):
    return f"dataset.data_dir={folder / 'shapes'}", f"results_dir={folder / 'results'}"


def test_a_record_names_protocol_and_images(tuned):
    record, file = tuned
    assert file.parent.name == "few_shot_2-shapes_objects"
    assert record["few_shot"]["shots"] == 2
    assert len(record["few_shot"]["ids"]) == len({*record["few_shot"]["ids"]}) == 60
    assert len(record["few_shot"]["sha256"]) == 64
    assert {*record["metrics"]["test"]} == {"accuracy", "mean_per_class", "calibration_error"}
    assert (
        record["cost"]["parts"]["class"]["additional_macs"] > 0 == record["cost"]["parts"]["image"]["additional_macs"]
    )
    assert record["warnings"] == []


def test_it_is_scored_again_to_the_same(tuned):
    record, file = tuned
    scored = run("mode=eval", f"from={file}")
    for name, value in record["metrics"]["test"].items():
        assert f"test {name}: {value:.2f} now, {value:.2f} recorded" in scored.stdout


def test_another_data_set_is_scored_by_its_own_names(tuned, folder):
    _, file = tuned
    other = ["task=classification", "task.layout=textures", "dataset=shapes"]
    scored = run("mode=eval", f"from={file}", *other, f"dataset.data_dir={folder / 'shapes'}", IMAGES)
    written = json.loads((file.with_suffix("") / "on-shapes_textures.json").read_text())
    accuracy = written["metrics"]["test"]["accuracy"]
    assert f"test accuracy: {accuracy:.2f} on shapes_textures, tuned on shapes_objects" in scored.stdout
    assert written["from"] == file.stem
    refused = run("mode=eval", f"from={file}", "dataset=nlvr2", check=False)
    assert refused.returncode == 2
    assert "dataset=nlvr2: is not read by labelled" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_base_to_new_scores_both_halves(folder):
    done = run(*JOB, "method=zero_shot", "task.protocol=base_to_new", "engine.evaluate=[test]", *places(folder))
    record = recorded(done)
    found = record["metrics"]["test"]
    assert found["h"] == pytest.approx(2 / (1 / found["base"] + 1 / found["new"]))
    assert record["selected"]["step"] == 0
    assert record["cost"]["method_params"] == record["cost"]["task_params"] == 0


def test_a_cache_is_filled_and_loaded_again(folder):
    done = run(*JOB, "method=tip_adapter", "engine.evaluate=[test]", *places(folder))
    accuracy = recorded(done)["metrics"]["test"]["accuracy"]
    scored = run("mode=eval", f"from={done.stdout.splitlines()[-1].removeprefix('record: ')}")
    assert f"test accuracy: {accuracy:.2f} now, {accuracy:.2f} recorded" in scored.stdout


def test_a_training_that_fails_is_told(folder):
    done = run(*JOB, "method=full", "engine.lr=30", "engine.max_steps=6", "engine.evaluate=[test]", *places(folder))
    told = "failed start: the loss ended at"
    assert told in done.stderr
    assert recorded(done)["warnings"][0].startswith(told)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("task.shots=16", "has 3 training images; 3 is the most that works"),
        ("task.template=own dataset.template=a", "a text that holds {} once"),
        ("method=coop method.prompts=40", "exceeds the 48 positions of the backbone"),
        ("task.protocol=one", "it has few_shot, base_to_new, full"),
    ],
)
def test_what_no_run_can_have_is_told_in_one_line(folder, setting, message):
    done = run(*JOB, *setting.split(), *places(folder), check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
