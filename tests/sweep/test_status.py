"""How runs stand, told from records, locks and a scheduler."""

import os

import pytest
from fabricated import Root

from vltune.runs import lock
from vltune.sweep import plan as plans
from vltune.sweep import status
from vltune.sweep.commands import again, going_on

PLACE = "records/vilt_mini/vqa-shapes/lora-0a1b2c3d-seed0.json"


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def run(missing=None, places=(PLACE,), **more):
    names = {"backbone": "vilt_mini", "task": "vqa", "dataset": "shapes", "method": "lora"}
    sizes = {"seed": 0, "devices": 1, "nodes": 1, "force": False}
    return plans.Run(["method=lora"], "method=lora", **names, **sizes | more, places=list(places), missing=missing)


def stands(root, scheduled=None, **of):
    return status.standing(root.folder, run(**of), scheduled)


def test_nothing_is_there(root):
    assert stands(root).state == "todo"
    assert stands(root, "queued").state == "queued"
    assert stands(root, places=()).state == "todo"
    assert stands(root, missing="data/vqav2: no such folder").error == "data/vqav2: no such folder"


def test_a_finished_run_is_finished_whatever_a_scheduler_says(root):
    root.add(60.0)
    assert stands(root).state == stands(root, "queued").state == "finished"


def test_a_forced_run_that_waits_is_not_what_finished_before(root):
    root.add(60.0)
    for word in ("queued", "running"):  # of a job that has not come to its run yet
        assert stands(root, word, force=True).state == "queued"
    assert stands(root, force=True).state == stands(root, "FAILED", force=True).state == "finished"


NOW = "2026-01-01T00:00:00+00:00"  # after the record of an earlier run


@pytest.mark.parametrize(
    ("word", "state", "cause"),
    [
        ("FAILED", "failed", "error"),
        ("OUT_OF_MEMORY", "failed", "memory"),
        ("TIMEOUT", "failed", "time"),
        ("CANCELLED", "todo", "cancelled"),
    ],
)
def test_a_forced_run_that_ended_before_its_record_began_is_not_what_finished_before(root, word, state, cause):
    root.add(60.0)
    found = status.standing(root.folder, run(force=True), word, NOW)
    assert (found.state, found.cause, found.record) == (state, cause, {})
    assert going_on(found).overrides == ["method=lora"], "anew"
    assert status.standing(root.folder, run(), word, NOW).state == "finished"
    assert status.standing(root.folder, run(force=True), word, "2024-12-31T00:00:00+00:00").state == "finished"
    assert status.standing(root.folder, run(force=True), None, NOW).state == "finished"
    assert status.standing(root.folder, run(force=True), "queued", NOW).state == "queued"


def test_the_record_of_either_precision_counts(root):
    root.add(60.0)
    assert stands(root, places=["records/vilt_mini/vqa-shapes/lora-ffffffff-seed0.json", PLACE]).state == "finished"


def test_of_two_precisions_a_finished_run_hides_one_that_was_begun(root):
    """A trial on a CPU, and the run on a GPU."""
    other = PLACE.replace("0a1b2c3d", "ffffffff")
    for status_ in ("interrupted", "failed"):
        root.fail("boom" if status_ == "failed" else None, status_)
        root.add(60.0, hash="ffffffff")
        assert stands(root, places=[PLACE, other]).state == "finished"
        assert stands(root, places=[other, PLACE]).state == "finished"


def test_what_was_cancelled_before_it_began_is_to_be_started(root):
    assert stands(root, "CANCELLED").state == "todo"
    root.fail(None, "running")
    assert (stands(root, "CANCELLED").state, stands(root, "CANCELLED").cause) == ("stale", "cancelled")


@pytest.mark.parametrize(
    ("error", "cause", "told"),
    [
        (
            "Traceback:\ntorch.cuda.OutOfMemoryError: CUDA out of memory",
            "memory",
            "OutOfMemoryError: CUDA out of memory",
        ),
        ("Traceback:\nvltune.errors.UserError: out of memory at step 3 with 8", "memory", "UserError: out of memory"),
        ("vltune.errors.UserError: the loss is nan at step 3", "diverged", "the loss is nan"),
        ("vltune.errors.UserError: the gradients' norm is inf at step 3", "diverged", "norm is inf"),
        ("vltune.errors.UserError: val: a score is not a number: the training diverged", "diverged", "not a number"),
        ("vltune.errors.UserError: a picture is not of numbers: the training diverged", "diverged", "of numbers"),
        ("vltune.errors.UserError: results: x cannot be written here (No space left)", "disk", "cannot be written"),
        ("vltune.errors.BadExampleError: a.arrow row 3", "data", "BadExampleError: a.arrow row 3"),
        ("vltune.errors.UserError: method.rank=99: must be", "configuration", "method.rank=99"),
        ("Traceback:\nRuntimeError: boom", "error", "RuntimeError: boom"),
    ],
)
def test_a_failed_run_has_a_cause(root, error, cause, told):
    root.fail(error)
    found = stands(root)
    assert (found.state, found.cause) == ("failed", cause)
    assert told in found.error
    assert stands(root, "queued").state == "queued"


def test_interrupted_and_killed_runs(root):
    root.fail(None, "interrupted")
    assert stands(root).state == "stopped"
    root.fail(None, "running")
    assert (stands(root).state, stands(root).cause) == ("stale", "killed")
    assert stands(root, "OUT_OF_MEMORY").cause == "memory"
    assert stands(root, "TIMEOUT").cause == "time"
    assert stands(root, "NODE_FAIL").cause == "node"
    assert stands(root, "running").state == "queued"  # a job that has not come to its run yet


def test_a_locked_run_is_running_and_tells_how_far_it_is(root):
    root.fail(None, "running")
    folder = root.folder / "runs" / "vilt_mini" / "vqa-shapes" / "lora-0a1b2c3d-seed0"
    with lock.Lock(folder, state=lambda: {"phase": "train", "step": 3, "total": 9}, lost=lambda reason: None) as mine:
        assert mine.claim() is None
        found = stands(root)
        assert (found.state, found.progress["step"], found.progress["pid"]) == ("running", 3, os.getpid())
    assert stands(root).state == "stale"


def test_a_broken_record_is_no_record(root):
    root.add(60.0).write_text("{")
    assert stands(root).state == "todo"


def test_what_ran_out_of_memory_is_retried_in_half_the_micro_batch(root):
    root.fail(
        "RuntimeError: CUDA out of memory",
        config={"engine": {"batch_size": 64, "micro_batch_size": None, "devices": 2}},
    )
    assert again(stands(root)).overrides[-1] == "engine.micro_batch_size=16"
    root.fail(
        "RuntimeError: CUDA out of memory", config={"engine": {"batch_size": 64, "micro_batch_size": 4, "devices": 2}}
    )
    assert again(stands(root)).overrides[-1] == "engine.micro_batch_size=2"
    root.fail("RuntimeError: boom")
    assert again(stands(root)).overrides == ["method=lora"]


def test_a_retry_goes_on_where_the_sweep_was_forced(root):
    root.fail(
        "RuntimeError: CUDA out of memory", config={"engine": {"batch_size": 8, "micro_batch_size": 4, "devices": 1}}
    )
    assert going_on(stands(root)).overrides == ["method=lora", "engine.micro_batch_size=2"]
    retried = going_on(stands(root, force=True))
    assert retried.overrides == ["method=lora", "engine.micro_batch_size=2", "force=false"]
    assert going_on(stands(root, places=[], force=True)).overrides == ["method=lora"]  # nothing to go on from
    assert retried.of == again(stands(root, force=True)).of
