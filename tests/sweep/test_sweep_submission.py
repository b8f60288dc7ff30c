"""Files of submissions: what is none is told, and stops no command."""

import json
import os
from contextlib import nullcontext

import pytest

from vltune.errors import UserError
from vltune.sweep import local, slurm, submission
from vltune.sweep.job import Job
from vltune.sweep.queue import scheduled
from vltune.sweep.submission import Submission, read_all, this_process

WHOLE = {
    "launcher": "local",
    "arguments": ["+sweep=mini"],
    "jobs": [{"of": "a", "overrides": ["a"], "devices": 1, "nodes": 1}],
    "logs": "logs/1",
    "started": "now",
    "process": {},
    "arrays": {"7": [0]},
}
BROKEN = {
    "nothing": "",
    "half": json.dumps(WHOLE)[:40],
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "no jobs": json.dumps({"launcher": "local"}),
    "jobs that are none": json.dumps(WHOLE | {"jobs": [3]}),
    "jobs without overrides": json.dumps(WHOLE | {"jobs": [{"of": "a", "overrides": None}]}),
    "one more key": json.dumps(WHOLE | {"more": 1}),
    "a process that is all of them": json.dumps(WHOLE | {"process": {"boot": None, "pid": -1, "began": None}}),
    "half a process": json.dumps(WHOLE | {"process": {"pid": 7}}),
    "an array of jobs that there are not": json.dumps(WHOLE | {"arrays": {"7": [1]}}),
    "an array that is an option": json.dumps(WHOLE | {"arrays": {"--all": [0]}}),
    "arguments that are one text": json.dumps(WHOLE | {"arguments": "seed=0"}),
    "bytes": "\udcff\udcfe",
    "deep": "[" * 100_000,
}


@pytest.fixture(autouse=True)
def forget():
    submission._tell.cache_clear()


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_none_is_told_once_and_left_out(tmp_path, capsys, text):
    (tmp_path / "0.json").write_text(text, errors="surrogateescape")
    (tmp_path / "1.json").write_text(json.dumps(WHOLE))
    for _ in range(2):
        assert read_all(tmp_path) == [Submission(**WHOLE | {"jobs": [Job("a", ["a"])]})]
    assert (
        capsys.readouterr().err == f"{tmp_path / '0.json'}: is not what a submission wrote, and left out; delete it\n"
    )


def test_a_folder_and_a_link_to_nothing_in_their_place(tmp_path, capsys):
    (tmp_path / "0.json").mkdir()
    (tmp_path / "1.json").symlink_to(tmp_path / "gone")
    assert read_all(tmp_path) == []
    assert "0.json: is not what" in capsys.readouterr().err


def test_what_was_written_is_read(tmp_path):
    process = this_process(os.getpid())
    written = Submission("local", ["seed=0"], [Job("a", ["b"], 2, 1)], "logs/3", "now", process, {"12": [0]})
    written.write(tmp_path)
    assert read_all(tmp_path) == [written]


def command(folder, name, text):
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{text}\n")
    tool.chmod(0o755)


@pytest.mark.parametrize("text", [None, "exec sleep 60", "echo 'scancel: error: no controller' >&2; exit 1"])
def test_a_cluster_that_does_not_answer_is_told(tmp_path, monkeypatch, text):
    monkeypatch.setattr(slurm, "PATIENCE", 0.2)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if text else str(tmp_path))
    if text:
        for name in ("scancel", "squeue", "sacct"):
            command(tmp_path, name, text)
    with pytest.raises(UserError, match=r"^scancel 7: [^\n]+$"):
        slurm.cancel(["7"])
    assert scheduled([Submission(**WHOLE | {"jobs": [Job("a", ["a"])]})]) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "exec sleep 60",
            r"squeue -h -j 7: no answer in 0\.2 s; which runs wait in SLURM cannot be told now: try again",
        ),
        (
            "echo 'slurm_load_jobs error: Unable to contact controller' >&2; exit 1",
            "Unable to contact controller; which",
        ),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", None),
        ("exit 0", None),
    ],
)
def test_how_a_sweep_stands_is_not_guessed_where_slurm_is_silent(tmp_path, monkeypatch, text, told):
    monkeypatch.setattr(slurm, "PATIENCE", 0.2)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    command(tmp_path, "squeue", text)
    with pytest.raises(UserError, match=told) if told else nullcontext():
        slurm.check_answers(["7"])
    slurm.check_answers([])


def test_what_an_earlier_submission_ended_as_is_said_no_more_once_a_later_one_ended_well(monkeypatch):
    monkeypatch.setattr(slurm, "states", lambda arrays: {"7_0": "CANCELLED"})
    first, second = (Submission(**WHOLE | {"jobs": [Job("a", ["a"])], "arrays": {name: [0]}}) for name in ("7", "8"))
    assert scheduled([first]) == {"a": "CANCELLED"}
    assert scheduled([first, second]) == {}


@pytest.mark.parametrize("withdraws", [True, False])
def test_what_was_taken_of_a_sweep_that_is_refused_half_way_is_withdrawn(tmp_path, monkeypatch, withdraws):
    """A site may let a person have so many jobs."""
    asked = tmp_path / "asked"
    limit = "sbatch: error: QOSMaxSubmitJobPerUserLimit"
    taken = f'test -e {tmp_path}/first && {{ echo "{limit}" >&2; exit 1; }}; touch {tmp_path}/first'
    command(tmp_path, "sbatch", f"{taken}\necho Submitted batch job 77")
    command(tmp_path, "srun", "exit 0")
    command(tmp_path, "scancel", f'echo "$@" >> {asked}; exit {0 if withdraws else 1}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    settings = {"timeout_min": 1, "parallel": 2}
    jobs = [Job("a", ["a"], devices) for devices in (1, 1, 2)]
    told = "the 2 runs that it had taken were cancelled" if withdraws else "what it had taken waits on: scancel 77"
    with pytest.raises(UserError, match=f"QOSMaxSubmitJobPerUserLimit.*; {told}"):
        slurm.submit(tmp_path, jobs, settings, tmp_path / "logs", "x")
    assert asked.read_text() == "77\n"


def test_a_driver_that_hangs_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "PATIENCE", 0.2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    command(tmp_path, "nvidia-smi", "exec sleep 60")
    with pytest.raises(UserError, match=r"nvidia-smi .*: no answer; name the GPUs in CUDA_VISIBLE_DEVICES"):
        local.visible_gpus()
