"""What is told of the runs of a sweep, here and on a cluster that a stand-in plays."""

from pathlib import Path

import pytest
from fabricated import Root

from vltune.sweep import launch, slurm, status
from vltune.sweep import plan as plans
from vltune.sweep.job import job
from vltune.sweep.submission import Submission, new_folder

PLACE = "records/vilt_mini/vqa-shapes/lora-0a1b2c3d-seed0.json"
LOG = Path("0.log")


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def run(places=(PLACE,), **more):
    names = {"backbone": "vilt_mini", "task": "vqa", "dataset": "shapes", "method": "lora"}
    sizes = {"seed": 0, "devices": 1, "nodes": 1, "force": False}
    return plans.Run(["method=lora"], "method=lora", **names, **sizes | more, places=list(places))


def told(root, code, scheduled=None, **of):
    return launch.one_line(status.standing(root.folder, run(**of), scheduled), code, LOG)


def test_a_forced_run_that_ends_before_it_begins_does_not_show_the_earlier_score(root):
    root.add(60.0)
    assert told(root, 0, force=True) == "method=lora: vqa_score 60.00"
    assert told(root, 75, force=True) == "method=lora: vqa_score 60.00"
    assert told(root, 2, force=True) == "method=lora: exit status 2 (0.log)"
    assert told(root, -9, force=True) == "method=lora: killed by SIGKILL (0.log)"
    root.fail()
    assert told(root, 1, force=True) == "method=lora: failed: RuntimeError: boom (0.log)"


def test_an_evaluation_that_ended_well_is_done_though_it_makes_no_record(root):
    assert told(root, 0) == "method=lora: was not started"
    assert told(root, 0, places=()) == "method=lora: done"
    assert told(root, 2, places=()) == "method=lora: todo: exit status 2 (0.log)"
    assert told(root, 0, "CANCELLED", places=()) == "method=lora: was not started"


@pytest.fixture
def on_cluster(root, monkeypatch):
    """Gives one run to a cluster that says these words of it, look by look, and waits; -> the exit status."""

    def submitted(words, **of):
        each = run(**of)
        launcher = {"name": "slurm", "wait": True}
        plan = plans.Plan(Path(), "some", ["method=lora"], root.folder, launcher, [each.overrides], [{}], [each])
        logs, started = new_folder(plan.folder)
        submission = Submission("slurm", plan.arguments, [job(each)], str(logs), started, arrays={"77": [0]})
        said = iter(words)
        monkeypatch.setattr(launch, "LOOK", 0.0)
        monkeypatch.setattr(launch, "submit", lambda *_: submission)
        monkeypatch.setattr(slurm, "check_answers", lambda arrays: None)
        monkeypatch.setattr(slurm, "states", lambda arrays: {"77_0": word} if arrays and (word := next(said)) else {})
        submission.write(plan.folder)
        return launch.run_on_cluster(plan, submission.jobs, True), [*said]

    return submitted


@pytest.mark.parametrize(
    ("places", "words", "code"),
    [((), ["running", None], 0), ((), ["CANCELLED"], 1), ((), ["FAILED"], 1), ((PLACE,), ["queued", None], 1)],
)
def test_the_exit_status_counts_what_did_not_begin_and_no_evaluations(on_cluster, places, words, code):
    assert on_cluster(words, places=places) == (code, [])


@pytest.mark.parametrize(("word", "told"), [("FAILED", "1 failed\n"), ("CANCELLED", "1 todo\n")])
def test_a_forced_run_whose_job_ends_before_its_record_begins_is_no_success(on_cluster, root, word, told, capsys):
    root.add(60.0)
    assert on_cluster(["queued", word], force=True) == (1, [])
    shown = capsys.readouterr()
    assert shown.out.endswith(told)
    assert "60.00" not in shown.err


def test_who_waits_for_a_forced_run_waits_till_it_has_run(on_cluster, root):
    root.add(60.0)
    assert on_cluster(["queued", "running", None], force=True) == (0, [])
