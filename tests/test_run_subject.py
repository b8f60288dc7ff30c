"""A subject from five pictures as a user types it: trained, painted, judged, again, and one's own prompts."""

import json
import signal
import time
from pathlib import Path

import forked
import pytest
from pyarrow import parquet
from test_cli import invoke
from test_run import recorded, run, same_result

SMALL = ["task.class_pictures=2", "task.sampler_steps=2", "task.seeds=[0]", "engine.max_steps=2", "engine.workers=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("subject")


def arguments(folder, method, *more):
    prompts = folder / "prompts.txt"
    prompts.write_text("a {token} {class} at the top left\na red circle and a {token} {class}\n")
    places = f"dataset.data_dir={folder / 'shapes'}", f"results_dir={folder / 'results'}"
    kept = f"engine.features_dir={folder / 'features'}", f"dataset.prompts={prompts}"
    return ["backbone=sd_mini", "task=subject", f"method={method}", *SMALL, *places, *kept, *more]


def job(folder, method, *more):
    return run(*arguments(folder, method, *more))


def stopped(arguments, folder, sign):
    """Its pictures, once it has been asked to stop as soon as a file of this form is in the folder."""
    process = forked.Process("run.py", *arguments)
    while not [*folder.glob(sign)] and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert errors.splitlines()[-1] == "stopped by SIGTERM: saved; the same command resumes it"
    return pictures(folder)


def pictures(folder):
    """When each was painted; what is put beside them is copied."""
    painted = (*folder.glob("features/**/*.png"), *folder.glob("results/records/*/*/*/test/*.png"))
    return {file: file.stat().st_mtime_ns for file in painted}


def test_a_word_of_several_tokens_is_told_before_anything_is_painted(folder):
    untouched = folder / "untouched"
    given = arguments(folder, "textual_inversion", "method.initial='a square'", f"engine.features_dir={untouched}")
    done = run(*given, check=False)
    assert done.returncode == 2
    assert "method.initial=a square: is 2 tokens of this vocabulary; choose a word that is one" in done.stderr
    assert not untouched.exists()


@pytest.fixture(scope="module")
def tuned(folder):
    """A record, and its file."""
    done = job(folder, "lora")
    return recorded(done), Path(done.stdout.splitlines()[-1].removeprefix("record: "))


def test_a_record_names_its_judge_and_its_pictures_lie_beside_it(tuned):
    record, file = tuned
    assert file.parent.name == "subject-shapes_banded_square"
    assert record["judges"]["shapes"].startswith("ShapesJudge shapes_judge.safetensors ")
    assert {*record["metrics"]["test"]} == {
        "likeness",
        "faithful",
        "balance",
        "drift",
        "prior",
    }  # one seed, no diversity
    rows = parquet.read_table(file.with_suffix(".parquet")).to_pylist()
    for row in rows:
        assert (file.with_suffix("") / row["picture"]).is_file() and (file.with_suffix("") / row["beside"]).is_file()
    assert (file.with_suffix("") / "sheet.png").is_file()
    assert {*record["cost"]["parts"]} == {"call", "prompt"}
    assert record["cost"]["method_params"] == 28_672


def test_a_second_run_does_nothing(tuned, folder):
    assert job(folder, "lora").stdout.startswith("finished before")


def test_it_is_scored_and_judged_again_to_the_same(tuned):
    record, file = tuned
    scored, judged = run("mode=eval", f"from={file}"), invoke("judge", file)
    for name, value in record["metrics"]["test"].items():
        assert f"test {name}: {value:.2f} now, {value:.2f} recorded" in scored.stdout
        assert f"test {name} {value:.2f}" in judged.output
    assert json.loads(file.read_text())["metrics"] == record["metrics"]


def test_what_the_untuned_model_paints_is_painted_once_for_all_methods(tuned, folder):
    kept = {file: file.stat().st_mtime_ns for file in (folder / "features").rglob("*.png")}
    assert len(kept) == 2 + 2  # of the class to train on, and of both prompts
    assert recorded(job(folder, "textual_inversion"))["metrics"]["test"]["drift"] >= 0
    assert {file: file.stat().st_mtime_ns for file in (folder / "features").rglob("*.png")} == kept


def test_it_is_stopped_in_each_of_its_parts_and_makes_no_picture_twice(tmp_path):
    longer = ["task.class_pictures=12", "task.seeds=[0,1,2]", "task.sampler_steps=5", "engine.max_steps=40"]
    longer += ["engine.eval_batch_size=2", "engine.checkpoint_seconds=0.05"]
    asked = arguments(tmp_path, "lora", *longer)
    of_class = stopped(asked, tmp_path, "features/**/*.png")
    assert 0 < len(of_class) < 12
    in_training = stopped(asked, tmp_path, "results/**/last.pt")
    assert len(in_training) == 12 + 2 * 3  # and of each prompt without the token
    painted = stopped(asked, tmp_path, "results/**/subject-0000.png")
    assert len(painted) > 12 + 2 * 3
    record = recorded(run(*asked))
    whole = pictures(tmp_path)
    assert of_class.items() <= in_training.items() <= painted.items() <= whole.items()
    assert same_result(record, recorded(run(*asked, f"results_dir={tmp_path / 'straight'}")))


def test_the_ceiling_trains_nothing_and_paints_nothing(tuned, folder):
    record = recorded(job(folder, "real"))
    assert record["metrics"]["test"].keys() == {"likeness"}
    assert record["metrics"]["test"]["likeness"] > 0.9
    assert record["cost"]["method_params"] == 0


def test_ones_own_prompts_are_painted_once(tuned, folder):
    _, file = tuned
    asked = [
        "generate",
        file,
        "--prompt",
        "a z square",
        "--prompt",
        "a blue star",
        "--seeds",
        "3,4",
        "--out",
        folder / "own",
    ]
    assert "a blue star: has no z, the word for the subject: it is not asked for" in invoke(*asked).output
    made = {each: each.stat().st_mtime_ns for each in (folder / "own").rglob("*-seed*.png")}
    assert len(made) == 4
    assert invoke(*asked).exit_code == 0
    assert {each: each.stat().st_mtime_ns for each in (folder / "own").rglob("*-seed*.png")} == made


def test_a_prompt_of_one_s_own_whose_end_is_not_read_is_told(tuned, folder):
    long = "a z square " + "and a red star " * 6
    done = invoke("generate", tuned[1], "--prompt", long, "--prompt", "a z", "--seeds", "0", "--out", folder / "long")
    assert done.exit_code == 0
    told = "is longer than the 24 tokens that are read of a text: its end is left out"
    assert [line for line in done.output.splitlines() if told in line] == [f"{long.strip()}: {told}"]


def test_a_stop_leaves_what_is_painted(tuned, folder):
    many = ",".join(map(str, range(2000)))
    asked = ["generate", tuned[1], "--prompt", "a z square", "--seeds", many, "--out", folder / "stopped"]
    process = forked.Process("-m", "vltune", *asked)
    while not [*folder.glob("stopped/*/*-seed0.png")] and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert errors.splitlines()[-1] == "stopped by SIGTERM: what is painted stays; the same command paints the rest"
    assert 0 < len([*folder.glob("stopped/*/*.png")]) < 2000


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--prompt", "a z", "--seeds", "1,1"], "--seeds 1,1: give different whole numbers with commas between them"),
        (["--prompt", " "], "--prompt is empty; say what to paint"),
    ],
)
def test_what_cannot_be_painted_is_told_in_one_line(tuned, given, told):
    done = invoke("generate", tuned[1], *given)
    assert done.exit_code == 2 and told in done.output and done.output.count("\n") == 1


def test_a_judge_that_was_not_asked_is_told(tuned):
    done = invoke("judge", tuned[1], "--folder", "dino=here")
    assert done.exit_code == 2
    assert done.output == "error: --folder dino=here: the record asks no such judge; of folders it asks none\n"
