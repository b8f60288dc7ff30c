"""Files of submissions: what is none is told, and stops no command."""

import json
import os
import sys
from contextlib import nullcontext, suppress

import pytest

from vltune.errors import UserError
from vltune.sweep import launch, local, slurm, submission
from vltune.sweep import plan as plans
from vltune.sweep.job import Job
from vltune.sweep.queue import scheduled, submitted
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


def test_when_a_run_was_left_to_slurm_is_told_but_of_a_retry_that_goes_on():
    def submission(time, *overrides, arrays):
        return Submission(**WHOLE | {"jobs": [Job("a", ["a", *overrides])], "started": time, "arrays": arrays})

    first, second = submission("1", arrays={"7": [0]}), submission("2", arrays={"8": [0]})
    here, retried = submission("3", arrays={}), submission("4", "force=false", arrays={"9": [0]})
    assert submitted([first, second, here]) == {"a": "2"}
    assert submitted([first, retried]) == {}


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


SBATCH = f"""#!{sys.executable} -S
import os, signal, sys
from pathlib import Path
here = Path(__file__).parent
with (here / "arrays").open("a") as file:
    print(next(line for line in open(sys.argv[1]) if "--array" in line).strip(), file=file)
number = 76 + len((here / "arrays").read_text().splitlines())
if number == 78:
    exec((here / "meanwhile").read_text())
print("Submitted batch job", number)
"""


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Gives runs to a cluster that takes two in an array; `meanwhile` is executed within its second sbatch.  -> the
    submissions that are found then, and what scancel was asked."""

    def give(meanwhile="", runs=4, **settings):
        command(tmp_path, "sbatch", "")
        (tmp_path / "sbatch").write_text(SBATCH)
        (tmp_path / "meanwhile").write_text(meanwhile)
        command(tmp_path, "srun", "exit 0")
        command(tmp_path, "scancel", f'echo "$@" >> {tmp_path}/asked')
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setattr(slurm, "MOST", 2)
        launcher = {"name": "slurm", "timeout_min": 1, "parallel": 4} | settings
        plan = plans.Plan(tmp_path, "some", ["seed=0"], tmp_path / "results", launcher, [])
        jobs = [Job(f"{number}", [f"seed={number}"]) for number in range(runs)]
        with suppress(KeyboardInterrupt, UserError):
            launch.submit(plan, jobs)
        return read_all(plan.folder), (tmp_path / "asked").read_text().split() if (tmp_path / "asked").exists() else []

    return give


def test_each_array_is_written_down_before_the_next_is_submitted(given, tmp_path):
    seen = "(here / 'seen').write_text(next((here / 'results/sweeps/some').glob('*.json')).read_text())"
    (found,), asked = given(seen)
    assert (found.arrays, asked) == ({"77": [0, 1], "78": [2, 3]}, [])
    assert json.loads((tmp_path / "seen").read_text())["arrays"] == {"77": [0, 1]}


CTRL_C = "[os.kill(each, signal.SIGINT) for each in (os.getppid(), os.getpid())]"  # as of a terminal, to all


def test_ctrl_c_while_arrays_are_submitted_cancels_all_that_were(given, tmp_path, capfd):
    assert given(CTRL_C) == ([], ["77", "78"])
    assert "hydra/launcher=slurm: the 4 runs that it had taken were cancelled\n" in capfd.readouterr().err
    assert not list((tmp_path / "results" / "sweeps" / "some").iterdir())


def test_what_cannot_be_cancelled_again_is_left_for_cancel_to_find(given, monkeypatch):
    def silent(arrays):
        raise UserError("scancel 77 78: no answer")

    monkeypatch.setattr(slurm, "cancel", silent)
    (found,), _ = given(CTRL_C)
    assert [*found.arrays] == ["77", "78"]


def test_a_disk_that_is_full_meanwhile_leaves_no_array(given, monkeypatch):
    def write(submission, folder):
        raise UserError("the disk is full")

    monkeypatch.setattr(Submission, "write", write)
    assert given() == ([], ["77"])


@pytest.mark.parametrize(("parallel", "limits"), [(4, "22"), (3, "11"), (1, "11"), (None, "22")])
def test_a_limit_of_jobs_at_a_time_is_shared_out_over_the_arrays(given, tmp_path, parallel, limits):
    given(parallel=parallel)
    lines = (tmp_path / "arrays").read_text().splitlines()
    assert [line.partition("%")[2] for line in lines] == [*limits]


@pytest.mark.parametrize(
    ("parallel", "parts", "limits"), [(32, [1000, 1000, 1000, 168], [10, 10, 10, 1]), (2, [9, 9, 9], [1, 1, 1])]
)
def test_the_shares_of_a_limit(parallel, parts, limits):
    assert [slurm.share(parallel, part, sum(parts)) for part in parts] == limits


def test_a_driver_that_hangs_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "PATIENCE", 0.2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    command(tmp_path, "nvidia-smi", "exec sleep 60")
    with pytest.raises(UserError, match=r"nvidia-smi .*: no answer; name the GPUs in CUDA_VISIBLE_DEVICES"):
        local.visible_gpus()
