"""Online runs against a W&B server on this machine, which keeps what it is sent, or misbehaves."""

import pytest
from wandb_server import serving
from wandb_user import STEPS, User, patient


@pytest.fixture
def user(tmp_path):
    return User(tmp_path)


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
