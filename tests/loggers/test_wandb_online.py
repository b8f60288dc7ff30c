"""Online runs against a W&B server on this machine, which keeps what it is sent, or misbehaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from results.fabricated import fabricate
from wandb_server import KEY, serving

from vltune.results import record as records

HISTORY = [{"step": step, "train/loss": 1 / step} for step in (1, 2, 3)]
STEPS = [1, 2, 3, 4]  # of the history, and that of the scores
LOGGED = """
import json, sys
from pathlib import Path
from vltune.loggers.wandb import WandbLogger
options, file, folder, steps, exit_code = json.loads(sys.argv[1])
record, folder = json.loads(Path(file).read_text()), Path(folder)
logger = WandbLogger(mode="online", **options)
logger.start(record, folder)
for point in record["history"][:steps]:
    logger.log(point, point["step"])
logger.finish(record, Path(file), exit_code)
print(logger.trouble)
"""


class User:
    """A home without W&B's key or settings, and a results folder."""

    def __init__(self, home: Path):
        self.home = home
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "NETRC"))}
        self.environment |= {"HOME": str(home), "WANDB_ERROR_REPORTING": "false", "OMP_NUM_THREADS": "1"}

    def knows(self, server, key=KEY):
        self.environment |= {"WANDB_BASE_URL": server.address} | ({"WANDB_API_KEY": key} if key else {})
        return self

    def record(self, **fields) -> Path:
        return records.write(fabricate(**{"history": HISTORY, "sweep": "mini", **fields}), self.home / "results")

    def logs(self, file, steps=3, exit_code=0, **options) -> subprocess.CompletedProcess:
        """A process that logs a run as run.py does; the time limit is one for the test, far above what it takes."""
        options = {"start_timeout": 1, "finish_timeout": 1, **options}
        given = json.dumps([options, str(file), str(self.home / "run"), steps, exit_code])
        return self.run(sys.executable, "-c", LOGGED, given)

    def run(self, *command, cwd=None) -> subprocess.CompletedProcess:
        pipe = subprocess.PIPE
        return subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            timeout=120,
            cwd=cwd,
        )


@pytest.fixture
def user(tmp_path):
    return User(tmp_path)


def patient(**more):
    """Time enough for a server that answers."""
    return {"start_timeout": 60, "finish_timeout": 60, **more}


def test_a_run_reaches_the_server(user):
    with serving() as server:
        file = user.record()
        file.with_suffix(".safetensors").write_bytes(b"tuned")
        done = user.knows(server).logs(file, **patient(tags=["mine"]))
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
    [run] = server.runs.values()
    assert done.stderr == f"W&B: {server.address}/someone/vltune/runs/{run.id}\n"
    assert [row["_step"] for row in run.history] == STEPS
    assert run.summary["test/vqa_score"] == 60.0
    assert run.config["method"]["rank"] == 4
    assert run.last("groupName") == "mini"
    assert run.last("jobType") == "vqa"
    assert run.last("tags") == ["lora", "vilt_mini", "vqa", "shapes", "mine"]
    assert run.exit_code == 0
    assert {kept.kind for kept in server.artifacts.values()} == {"record", "model"}
    assert file.read_bytes() in server.uploaded.values()
    assert not server.unanswered


def test_a_preempted_run_goes_on_as_the_same_run(user):
    with serving() as server:
        file = user.knows(server).record()
        user.logs(file, steps=2, exit_code=143, **patient())
        [run] = server.runs.values()
        assert ([row["_step"] for row in run.history], run.exit_code) == ([1, 2], 143)
        done = user.logs(file, **patient())
        assert done.stdout == "None\n"
    [run] = server.runs.values()
    assert [row["_step"] for row in run.history] == STEPS
    assert run.exit_code == 0


FAULTS = {"401": 401, "429": 429, "never answers": "hang", "hangs up": "close"}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_server_that_fails_at_the_start_costs_one_line(user, fault):
    with serving(lambda server, operation: fault) as server:
        done = user.knows(server).logs(user.record())
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("W&B could not start: ")
    assert line.endswith(": off for this run; vltune wandb-sync sends its record")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_server_that_fails_later_costs_one_line(user, fault):
    with serving(lambda server, operation: fault if server.runs else None) as server:
        done = user.knows(server).logs(user.record())
    assert done.returncode == 0
    url, line = done.stderr.splitlines()
    assert url.startswith("W&B: http")
    assert line.startswith("W&B could not be reached any more: ")
    assert line.endswith(": off for this run; vltune wandb-sync sends its record")


@pytest.mark.parametrize("refused", ["CreateArtifact", "file_stream"])
def test_what_the_server_refuses_is_told(user, refused):
    with serving(lambda server, operation: 403 if operation.endswith(refused) else None) as server:
        done = user.knows(server).logs(user.record(), **patient())
    assert done.returncode == 0
    _, line = done.stderr.splitlines()
    assert line.startswith("W&B could not keep the files" if refused == "CreateArtifact" else "W&B could not finish")
    assert not list(user.home.rglob("wandb-sent.json"))


def test_a_server_that_is_not_there_costs_one_line(user):
    with serving() as server:
        user.knows(server)
    done = user.logs(user.record())
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("W&B could not start: CommError")


def test_without_a_key_nobody_is_asked_for_one(user):
    with serving() as server:
        done = user.knows(server, key=None).logs(user.record())
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert "No API key configured" in line
    assert not server.asked
