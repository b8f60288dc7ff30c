"""Whose a run is, and what becomes of a record that a forced run replaces."""

import json
import os
import signal
import subprocess

import pytest
from fabricated import fabricate
from lightning_fabric import Fabric
from several import processes

from vltune.errors import UserError
from vltune.experiment import claim
from vltune.records import record as records
from vltune.records import store
from vltune.runs import lock
from vltune.runs.signals import Interrupted, OwnedElsewhere, StopRequest

NAME = "lora-0a1b2c3d-seed0"
IN = "vilt_mini/vqa-shapes"
STARTED = "2026-11-21T09:05:00+00:00"


def provenance(started=STARTED, job=None):
    return fabricate()["provenance"] | {"started": started, "job": job}


def write(root, status="finished", forced=False, beside=True, **fields):
    """A record and what lies beside it; -> its file."""
    error = "Traceback:\nboom" if status == "failed" else None
    fields = {"provenance": provenance(), "config": {"force": forced}} | fields
    file = records.write(fabricate(status=status, error=error, **fields), root)
    if beside:
        for suffix in (".parquet", ".safetensors"):
            file.with_suffix(suffix).write_text(f"{suffix} before")
    return file


@pytest.fixture
def make(tmp_path):
    """Turns at one run, each as of a process of its own."""
    made = []

    def one(force=False, busy="wait"):
        folder, stop = tmp_path / "runs" / IN / NAME, StopRequest()
        made.append(lock.Lock(folder, lambda: {"phase": "train"}, stop.lose))
        file = records.path(tmp_path, fabricate()["identity"])
        return claim.Claim(tmp_path, file, folder, force, busy, made[-1], stop)

    yield one
    for each in made:
        each.release()


ALONE = {"accelerator": "cpu", "devices": 1}


def test_a_run_that_nobody_has_done_is_done(make):
    turn = make()
    assert not turn.is_done(turn.found)
    assert turn.take(Fabric(**ALONE))
    assert lock.holder(turn.folder).content["pid"] == os.getpid()


def test_a_finished_run_is_not_done_again_and_leaves_no_lock(make, tmp_path):
    write(tmp_path)
    turn = make()
    assert turn.is_done(turn.found)
    assert not turn.take(Fabric(**ALONE))
    assert not turn.folder.exists()


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_a_run_that_did_not_finish_is_resumed(make, tmp_path, status):
    file = write(tmp_path, status)
    turn = make()
    assert turn.take(Fabric(**ALONE))
    checkpoint(turn)
    assert turn.begin() == 30.0
    assert file.exists()
    assert (turn.folder / "checkpoints" / "last.pt").exists()


def test_the_time_of_a_killed_process_counts(make, tmp_path):
    write(tmp_path, "running", provenance=provenance() | {"seconds": None})
    turn = make()
    ended = subprocess.Popen(["true"])
    began = lock.began(ended.pid)
    ended.wait()
    turn.folder.mkdir(parents=True)
    killed = {"pid": ended.pid, "began": began, "boot": lock.boot(), "token": "0", "phase": "train", "seconds": 50.0}
    (turn.folder / lock.NAME).write_text(json.dumps(killed))
    assert turn.take(Fabric(**ALONE))
    assert turn.begin() == 50.0


def checkpoint(turn):
    folder = turn.folder / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.pt").touch()
    (turn.folder / "wandb-sent.json").touch()


@pytest.mark.parametrize(
    ("status", "forced"),
    [("finished", False), ("finished", True), ("failed", True), ("interrupted", False), ("running", False)],
)
def test_force_runs_anew_and_keeps_what_was_there(make, tmp_path, status, forced, capsys):
    before = records.read(write(tmp_path, status, forced))
    turn = make(force=True)
    assert turn.take(Fabric(**ALONE))
    checkpoint(turn)
    assert turn.begin() == 0.0
    assert [path.name for path in turn.folder.iterdir()] == [lock.NAME]
    (kept,) = (tmp_path / "replaced" / IN).iterdir()
    assert capsys.readouterr().err == f"the {status} run that was here is kept in {kept}\n"
    assert records.read(kept / f"{NAME}.json") == before
    assert (kept / f"{NAME}.parquet").read_text() == ".parquet before"
    assert (kept / f"{NAME}.safetensors").read_text() == ".safetensors before"
    assert store.load(tmp_path) == []
    assert not any((tmp_path / "records" / IN).iterdir())


def test_force_runs_anew_where_a_checkpoint_is_left_and_no_record(make):
    turn = make(force=True)
    assert turn.take(Fabric(**ALONE))
    checkpoint(turn)
    assert turn.begin() == 0.0
    assert [path.name for path in turn.folder.iterdir()] == [lock.NAME]


@pytest.mark.parametrize(("text", "told"), [("{", "broken JSON"), ('{"schema": 9}', "field 'schema' is 9")])
def test_a_record_that_cannot_be_read_is_told_and_force_runs_anew_and_keeps_it(make, tmp_path, text, told, capsys):
    write(tmp_path).write_text(text)
    with pytest.raises(UserError, match=f"{told}.*; force=true runs anew, and keeps that file in replaced/$"):
        make()
    for number in ("", ".2"):
        turn = make(force=True)
        assert turn.take(Fabric(**ALONE))
        checkpoint(turn)
        assert turn.begin() == 0.0
        assert [path.name for path in turn.folder.iterdir()] == [lock.NAME]
        kept = tmp_path / "replaced" / IN / f"{NAME}.unreadable{number}"
        assert capsys.readouterr().err == f"the unreadable run that was here is kept in {kept}\n"
        assert (kept / f"{NAME}.json").read_text() == text
        assert (kept / f"{NAME}.parquet").read_text() == ".parquet before"
        assert not any((tmp_path / "records" / IN).iterdir())
        turn.lock.release()
        write(tmp_path).write_text(text)


@pytest.mark.parametrize("status", ["interrupted", "running"])
def test_a_forced_run_that_was_preempted_is_resumed_by_its_command(make, tmp_path, status):
    file = write(tmp_path, status, forced=True)
    turn = make(force=True)
    assert turn.take(Fabric(**ALONE))
    checkpoint(turn)
    assert turn.begin() == 30.0
    assert file.exists()
    assert (turn.folder / "checkpoints" / "last.pt").exists()


@pytest.mark.parametrize(
    ("restarts", "of_job", "done"), [("1", "40_7", True), ("1", "40_8", False), (None, "40_7", False)]
)
def test_a_forced_job_that_is_requeued_after_its_end_is_done(make, tmp_path, monkeypatch, restarts, of_job, done):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "40")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    if restarts:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    write(tmp_path, forced=True, provenance=provenance(job=of_job))
    turn = make(force=True)
    assert turn.is_done(turn.found) == done


def working(make):
    other = make()
    assert other.take(Fabric(**ALONE))
    return other


def test_who_leaves_is_told_who_works(make, capsys):
    working(make)
    with pytest.raises(OwnedElsewhere, match=f"{NAME}: left to the process that works on it") as left:
        make(busy="leave").take(Fabric(**ALONE))
    assert left.value.exit_code == 75
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{NAME}: in work by ")
    assert f"process {os.getpid()}" in line


@pytest.mark.parametrize("force", [False, True])
def test_who_waits_takes_the_record_that_the_other_writes(make, tmp_path, monkeypatch, capsys, force):
    """With `force` too: the record came after the command."""
    write(tmp_path, "failed")
    other = working(make)
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            write(tmp_path, provenance=provenance("2026-11-21T10:00:00+00:00"))
            other.lock.release()

    monkeypatch.setattr(claim.time, "sleep", sleep)
    assert not make(force=force).take(Fabric(**ALONE))
    assert len(looks) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_who_waits_goes_on_where_the_other_stopped(make, tmp_path, monkeypatch):
    other = working(make)
    monkeypatch.setattr(claim.time, "sleep", lambda seconds: other.lock.release())
    assert make().take(Fabric(**ALONE))


def test_who_leaves_still_takes_the_place_of_a_dead_machine(make, monkeypatch):
    other = working(make)
    other.lock.held = False  # its machine died, and this one cannot know but by waiting
    monkeypatch.setattr(lock, "boot", lambda: "another machine")
    os.utime(other.lock.file, (0, 0))
    monkeypatch.setattr(lock, "SURE", -1)
    assert make(busy="leave").take(Fabric(**ALONE))


def test_who_waits_can_be_stopped(make, monkeypatch):
    working(make)
    turn = make()
    monkeypatch.setattr(claim.time, "sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))
    with turn.stop, pytest.raises(Interrupted) as stopped:
        turn.take(Fabric(**ALONE))
    assert str(stopped.value) == "stopped by SIGTERM: nothing was begun"


def test_what_killed_processes_left_half_written_is_removed(make, tmp_path):
    file = write(tmp_path, "running", beside=False)
    turn = make()
    turn.take(Fabric(**ALONE))
    checkpoint(turn)
    left = [file.with_name(f".{NAME}.{suffix}.0f.tmp") for suffix in ("json", "parquet")]
    left.append(turn.folder / "checkpoints" / ".last.pt.0f.tmp")
    others = file.with_name(".lora-0a1b2c3d-seed01.json.0f.tmp")
    for path in [*left, others]:
        path.touch()
    turn.begin()
    assert [path.exists() for path in [*left, others]] == [False, False, False, True]


def test_busy_is_wait_or_leave(make):
    with pytest.raises(UserError, match="busy=maybe: must be wait or leave"):
        make(busy="maybe")


@pytest.mark.parametrize(("state", "outcome"), [("todo", True), ("finished", False), ("busy", OwnedElsewhere)])
def test_processes_that_a_scheduler_started_do_what_the_first_is_told(make, tmp_path, state, outcome):
    if state == "finished":
        write(tmp_path)
    if state == "busy":
        working(make)

    def work(fabric):
        return make(busy="leave").take(fabric)

    assert processes(work) == [outcome] * 2
