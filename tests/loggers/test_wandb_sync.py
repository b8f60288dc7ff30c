"""`vltune wandb-sync` as a user types it, against a W&B server on this machine."""

import json
import re
import sys
from pathlib import Path

import pytest
from wandb_server import serving
from wandb_user import STEPS, User, patient

WANDB = Path(sys.executable).with_name("wandb")


@pytest.fixture
def user(tmp_path):
    return User(tmp_path)


def sync(user, *arguments):
    command = "from vltune.cli import app; app()"
    return user.run(
        sys.executable, "-c", command, "wandb-sync", "--results-dir", str(user.home / "results"), *arguments
    )


def lines(done) -> list[str]:
    """What was said of each record, in order."""
    return sorted(re.findall(r"^[\w ]+: (?:broken record|[^\s:]+)", done.stdout, flags=re.MULTILINE))


def place(seed):
    return f"records/vilt_mini/vqa-shapes/lora-0a1b2c3d-seed{seed}.json"


def held(server):
    """What must not be doubled: of every run its steps, of every artifact its versions."""
    runs = {run.id: [row["_step"] for row in run.history] for run in server.runs.values()}
    return runs, {name: kept.versions for name, kept in server.artifacts.items()}


def test_finished_records_are_sent_once(user):
    with serving() as server:
        user.knows(server).record(seed=0).with_suffix(".safetensors").write_bytes(b"tuned")
        user.record(seed=1)
        user.record(seed=2, status="failed", error="RuntimeError: boom")
        first = sync(user)
        assert (first.returncode, first.stderr) == (0, "")
        assert lines(first) == [f"sent: {place(0)}", f"sent: {place(1)}"]
        before = held(server)
        assert list(before[0].values()) == [STEPS, STEPS]
        assert sorted(kept.kind for kept in server.artifacts.values()) == ["model", "record", "record"]
        assert all(run.exit_code == 0 and run.summary["test/vqa_score"] == 60 for run in server.runs.values())

        asked = len(server.asked)
        again = sync(user)
        assert (again.returncode, lines(again)) == (0, [f"unchanged: {place(0)}", f"unchanged: {place(1)}"])
        assert len(server.asked) == asked
        assert held(server) == before
    assert not server.unanswered


def test_from_another_machine_it_is_the_same_run_and_nothing_is_doubled(user, tmp_path):
    with serving() as server:
        user.knows(server).record()
        sync(user)
        before = held(server)
        [note] = user.home.rglob("wandb-sent.json")
        note.unlink()
        done = sync(user)
        assert (done.returncode, lines(done)) == (0, [f"sent: {place(0)}"])
        assert held(server) == before


def test_a_record_that_changed_updates_its_run(user):
    with serving() as server:
        user.knows(server).record()
        sync(user)
        user.record(metrics={"val": None, "test": {"vqa_score": 61.5}})
        done = sync(user)
        assert (done.returncode, lines(done)) == (0, [f"sent: {place(0)}"])
        [run] = server.runs.values()
        assert run.summary["test/vqa_score"] == 61.5
        assert [row["_step"] for row in run.history] == STEPS
        [kept] = server.artifacts.values()
        assert len(kept.versions) == 2


def test_a_run_that_was_logged_online_is_not_sent_again(user):
    with serving() as server:
        user.knows(server)
        file = user.record()
        folder = user.home / "results" / "runs" / "vilt_mini" / "vqa-shapes" / file.stem
        user.logs(file, folder=folder, **patient())
        assert lines(sync(user)) == [f"unchanged: {place(0)}"]


def test_what_an_outage_kept_back_is_sent(user):
    """The run was opened and logged in part, and then the server was gone."""
    with serving() as server:
        user.knows(server)
        file = user.record()
        folder = user.home / "results" / "runs" / "vilt_mini" / "vqa-shapes" / file.stem
        server.fault = lambda server, operation: 403 if operation == "CreateArtifact" else None
        assert "could not keep the files" in user.logs(file, steps=2, folder=folder, **patient()).stderr
        server.fault = lambda server, operation: None
        done = sync(user)
        assert (done.returncode, lines(done)) == (0, [f"sent: {place(0)}"])
        [run] = server.runs.values()
        assert run.summary["test/vqa_score"] == 60
        assert [kept.kind for kept in server.artifacts.values()] == ["record"]


def test_another_project_is_sent_anew(user):
    with serving() as server:
        user.knows(server).record()
        sync(user)
        assert lines(sync(user, "--project", "other")) == [f"sent: {place(0)}"]


def test_one_that_fails_does_not_stop_the_others(user):
    def fault(server, operation):
        return 403 if operation == "CreateArtifact" and len(server.runs) == 1 else None

    with serving(fault) as server:
        user.knows(server)
        for seed in (0, 1):
            user.record(seed=seed)
        broken = user.record(seed=2)
        broken.write_text("{")
        done = sync(user)
        assert done.returncode == 1
        assert lines(done) == ["failed: broken record", f"failed: {place(0)}", f"sent: {place(1)}"]
        assert "could not keep the files" in done.stdout
        assert str(broken) in done.stdout
        assert re.search(r"failed\W+2\W+sent\W+1\b", done.stdout)
        broken.unlink()
        assert lines(sync(user)) == [f"sent: {place(0)}", f"unchanged: {place(1)}"]


def test_a_server_that_is_not_there_is_not_waited_for_again_and_again(user):
    for seed in range(5):
        user.record(seed=seed)
    with serving() as server:
        done = sync(user.knows(server, key=None))
        assert not server.asked
    assert done.returncode == 1
    assert lines(done)[:3] == [f"failed: {place(seed)}" for seed in range(3)]
    assert "W&B cannot be reached: 2 records are not tried" in done.stdout
    assert "No API key configured" in done.stdout


def test_a_dry_run_sends_nothing(user):
    with serving() as server:
        user.knows(server).record()
        assert lines(sync(user, "--dry-run")) == [f"would be sent: {place(0)}"]
        assert not server.asked


def test_offline_files_can_be_carried_to_a_machine_with_a_network(user):
    with serving() as server:
        user.knows(server).record()
        done = sync(user, "--mode", "offline")
        assert (done.returncode, lines(done)) == (0, [f"sent: {place(0)}"])
        assert lines(sync(user, "--mode", "offline")) == [f"unchanged: {place(0)}"]
        assert not server.asked
        [files] = user.home.rglob("offline-run-*")
        assert user.run(str(WANDB), "sync", str(files)).returncode == 0
        before = held(server)
        assert list(before[0].values()) == [STEPS]
        assert lines(sync(user)) == [f"sent: {place(0)}"]
        assert held(server) == before


def test_wandb_sync_skips_the_files_of_a_record_that_was_sent(user):
    with serving() as server:
        user.knows(server).record()
        sync(user, "--mode", "offline")
        sync(user)
        before = held(server)
        [files] = user.home.rglob("offline-run-*")
        assert "Skipped 1 synced run(s)" in user.run(str(WANDB), "sync", str(files)).stderr
        assert held(server) == before


def test_a_results_folder_that_is_not_there_is_one_line(user):
    done = sync(user)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {user.home / 'results'}: no such folder")


def test_predictions_are_shown_without_images_where_the_data_is_not_here(user):
    import pyarrow as pa
    from pyarrow import parquet

    with serving() as server:
        file = user.knows(server).record()
        rows = [{"split": "test", "id": id, "prediction": "red", "score": 0.6} for id in range(3)]
        parquet.write_table(pa.Table.from_pylist(rows), file.with_suffix(".parquet"))
        assert sync(user, "--examples", "0").returncode == 0
        assert [kept.kind for kept in server.artifacts.values()] == ["record"]
        assert sync(user, "--project", "other").returncode == 0
    [content] = [body for path, body in server.uploaded.items() if path.endswith("test/examples.table.json")]
    shown = json.loads(content)
    assert shown["columns"] == ["id", "prediction", "score"]
    assert shown["data"] == [[id, "red", 0.6] for id in range(3)]


def test_packed_predictions_are_sent_as_the_run_s_own_file(user):
    """Also offline, where W&B uploads them later."""
    from vltune.engine.artifacts import write_predictions
    from vltune.records import record as records
    from vltune.records.pack import pack

    with serving() as server:
        files = [user.knows(server).record(seed=seed).with_suffix(".parquet") for seed in range(2)]
        for seed, file in enumerate(files):
            rows = [{"id": id, "prediction": f"red {seed}", "score": 0.6} for id in range(3)]
            write_predictions(file, {"test": rows}, records.read(file.with_suffix(".json")))
        written = [file.read_bytes() for file in files]
        list(pack(user.home / "results", pytest.fail))
        assert not any(file.exists() for file in files)
        done = sync(user)
        assert (done.returncode, lines(done)) == (0, [f"sent: {place(0)}", f"sent: {place(1)}"])
        sent = {Path(path).name: body for path, body in server.uploaded.items()}
        assert [sent[file.name] for file in files] == written
        shown = [
            json.loads(body)["data"] for path, body in server.uploaded.items() if path.endswith("examples.table.json")
        ]
        assert sorted(rows[0][1] for rows in shown) == ["red 0", "red 1"]
        assert sync(user, "--mode", "offline", "--project", "other").returncode == 0
    kept = sorted((user.home / "results" / "runs").rglob("lora*.parquet"))
    assert [file.read_bytes() for file in kept] == written
