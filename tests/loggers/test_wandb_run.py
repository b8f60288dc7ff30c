"""`python run.py logger=wandb` as a user types it, against a W&B server on this machine."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wandb_server import serving
from wandb_user import User

from vltune.records import record as records

ROOT = Path(__file__).parents[2]


@pytest.fixture
def user(tmp_path):
    return User(tmp_path)


def job(user, *arguments) -> list[str]:
    small = ["engine.max_steps=100", "engine.batch_size=8", f"dataset.data_dir={user.home / 'world'}"]
    small += ["dataset.generate.images={train: 20, val: 8, test: 30}", f"results_dir={user.home / 'results'}"]
    return [sys.executable, "run.py", *small, "logger=wandb", "logger.mode=online", *arguments]


def interrupted(user, *arguments) -> None:
    """The same run, stopped by SIGTERM after its first checkpoint."""
    command = [*job(user, *arguments), "engine.checkpoint_seconds=0.05"]
    process = subprocess.Popen(command, env=user.environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if list(user.home.glob("results/runs/**/last.pt")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, errors


def shown(server, run) -> dict:
    """The table of predictions of a run."""
    [content] = [
        body
        for path, body in server.uploaded.items()
        if path.endswith("examples.table.json") and path.startswith(f"/artifact/run-{run.id}")
    ]
    return json.loads(content)


def test_a_preempted_run_and_another_method_look_alike(user):
    with serving() as server:
        user.knows(server)
        interrupted(user, "method=lora")
        [run] = server.runs.values()
        assert run.exit_code == 128 + signal.SIGTERM
        for method in ("lora", "full"):
            done = user.run(*job(user, f"method={method}"), cwd=ROOT)
            assert done.returncode == 0, done.stderr
    lora, full = server.runs.values()
    assert lora is run
    steps = [*range(2, 101, 2), 101, 102]  # 50 points of the curves, the scores, the table
    curves = {"train/loss", "train/lr"}
    for each in (lora, full):
        assert [row["_step"] for row in each.history] == steps
        assert {name for row in each.history[:50] for name in row if not name.startswith("_")} == curves
        assert each.exit_code == 0
    assert lora.history[50].keys() == full.history[50].keys()
    assert {"val/vqa_score", "test/vqa_score", "cost/method_params", "cost/latency_ms_median"} <= lora.summary.keys()
    table, other = shown(server, lora), shown(server, full)
    assert table["columns"] == ["id", "image", "text", "prediction", "truth", "score"]
    assert len(table["data"]) == 64
    assert [row[0] for row in table["data"]] == [row[0] for row in other["data"]]
    assert all(row[1]["_type"] == "image-file" for row in table["data"])
    kinds = sorted(kept.kind for kept in server.artifacts.values())
    assert kinds == ["model", "model", "record", "record", "run_table", "run_table"]
    assert not server.unanswered


def test_a_server_that_fails_does_not_stop_a_run(user):
    with serving(lambda server, operation: 429) as server:
        done = user.knows(server).run(*job(user, "method=lora", "logger.start_timeout=1"), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("W&B could not start: ") == 1
    assert "wandb: " not in done.stderr
    [file] = user.home.glob("results/records/**/*.json")
    assert records.read(file)["status"] == "finished"
