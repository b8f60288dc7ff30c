"""Runs side by side on this machine, with a stand-in for run.py."""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest

from vltune.sweep import local
from vltune.sweep.job import Job
from vltune.sweep.queue import scheduled
from vltune.sweep.submission import Submission, is_alive, read_all, this_process

STAND_IN = """
import os, signal, sys, time
what = sys.argv[1]
print(" ".join(sys.argv[1:]), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    open(sys.argv[2], "w").close()
    time.sleep(30)
sys.exit(int(what))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "run.py").write_text(STAND_IN)
    return tmp_path


def launch(project, *jobs, parallel=2, **more):
    return local.launch(project, [Job("", list(job)) for job in jobs], project, parallel, **more)


@pytest.fixture(params=[None, ("json",)], ids=["each anew", "copies"])
def modules(request):
    return request.param


def test_one_that_fails_or_is_killed_stops_no_other(project, modules):
    ended = {}
    outcome = launch(project, ["0"], ["kill"], ["3"], ["0"], ended=ended.__setitem__, modules=modules)
    assert outcome == local.Outcome([0, -signal.SIGKILL, 3, 0], None)
    assert ended == dict(enumerate(outcome.statuses))
    assert [local.failed(status) for status in (*outcome.statuses, local.EX_TEMPFAIL)] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_where_no_exit_status_can_be_written_the_others_run(project):
    """As on a full disk."""
    (project / "0.ended").mkdir()
    assert launch(project, ["0"], ["3"], ["0"], parallel=1).statuses == [0, 3, 0]
    assert (project / "1.ended").read_text() == "3\n"


def test_what_each_prints_is_kept(project, modules):
    launch(project, ["0", "seed=1"], ["0", "engine.threads=7"], parallel=2, modules=modules)
    first, second = ((project / f"{number}.log").read_text() for number in (0, 1))
    assert first.startswith("0 seed=1 ")
    assert "hydra.mode=RUN busy=leave" in first
    assert second.count("engine.threads") == 1


def test_a_signal_is_passed_on_and_starts_no_more(project, modules):
    marks = [project / name for name in ("a", "b")]

    def stop():
        while not all(mark.exists() for mark in marks):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    outcome = launch(project, *(["wait", str(mark)] for mark in marks), ["0"], modules=modules)
    assert outcome == local.Outcome([143, 143, None], signal.SIGINT)


COPY = """
import json, os, sys
import first
first.used += 1
print(json.dumps([first.used, first.made, os.getppid(), os.getsid(0) == os.getpid(), sys.argv[1], __file__, __name__]))
"""


@pytest.fixture
def copied(project, monkeypatch):
    """A project whose runs import a module that tells in which process it was imported."""
    (project / "run.py").write_text(COPY)
    (project / "first.py").write_text("import os\nused, made = 0, os.getpid()\n")
    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", f"{project}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return project


def told(project, count):
    return [json.loads((project / f"{number}.log").read_text().splitlines()[-1]) for number in range(count)]


def test_what_is_copied_is_imported_once_and_each_run_has_its_own(copied):
    assert launch(copied, ["a"], ["b"], ["c"], modules=("first",)).statuses == [0, 0, 0]
    found = told(copied, 3)
    assert [each[0] for each in found] == [1, 1, 1]
    assert len({(each[1], each[2]) for each in found}) == 1, "of one process"
    assert found[0][1] == found[0][2]
    assert [each[3:] for each in found] == [[True, name, str(copied / "run.py"), "__main__"] for name in "abc"]


def test_what_libraries_warn_of_while_they_are_imported_is_not_for_the_terminal(copied, capfd):
    (copied / "first.py").write_text("import warnings\nwarnings.warn('x', FutureWarning)\n")
    (copied / "run.py").write_text("import warnings\nimport first\nwarnings.warn('a run has its own', FutureWarning)\n")
    assert launch(copied, ["a"], modules=("first",)).statuses == [0]
    assert capfd.readouterr().err == ""
    assert "a run has its own" in (copied / "0.log").read_text()


def test_a_signal_while_modules_are_imported_reaches_the_run_that_waits_for_them(copied):
    (copied / "first.py").write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(1)\n")
    (copied / "run.py").write_text("import time\ntime.sleep(30)\n")

    def stop():
        while not (copied / "begun").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    began = time.monotonic()
    outcome = launch(copied, ["a"], ["b"], parallel=1, modules=("first",))
    assert outcome == local.Outcome([-signal.SIGTERM, None], signal.SIGINT)
    assert time.monotonic() - began < local.SAVING


def test_code_that_changed_is_imported_anew(copied, monkeypatch):
    stamps = iter("112")
    monkeypatch.setattr(local, "stamp", lambda: next(stamps))
    launch(copied, ["a"], ["b"], ["c"], parallel=1, modules=("first",))
    made = [each[1] for each in told(copied, 3)]
    assert made[0] == made[1] != made[2]


def test_where_what_is_copied_is_killed_the_others_run(copied):
    (copied / "run.py").write_text(
        "import os, signal, sys\nif sys.argv[1] == 'k': os.kill(os.getppid(), signal.SIGKILL)\n"
    )
    outcome = launch(copied, ["k"], ["a"], ["b"], parallel=1, modules=("first",))
    assert outcome.statuses == [1, 0, 0]


def test_slots_are_gpus_or_cores(monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.slots(None) == [local.Slot(None, 1)] * 8
    assert local.slots(2) == [local.Slot(None, 4)] * 2
    assert local.slots(1) == [local.Slot(None, None)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert local.slots(None) == [local.Slot("2", 4), local.Slot("5", 4)]
    assert local.slots(1) == [local.Slot("2", None)]
    assert local.slots(None, devices=2) == [local.Slot("2,5", None)]
    assert local.slots(None, devices=3) == [local.Slot(None, None)], "which says itself that there are fewer"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert [slot.gpus for slot in local.slots(None, devices=2)] == ["0,1", "2,3"]


@pytest.mark.parametrize(
    ("said", "slot", "given"),
    [(None, 4, [4]), (8, 4, [4]), (4, 4, []), (2, 4, []), (2, None, []), (None, None, [])],
)
def test_a_run_is_given_fewer_threads_than_it_says_and_never_more(said, slot, given):
    of_slot = local.of_slot(local.Slot(None, slot), Job("", ["seed=0"], threads=said))
    assert of_slot == [f"engine.threads={threads}" for threads in given]


@pytest.mark.parametrize(("said", "given"), [(None, [2]), (3, [2]), (2, [])])
def test_the_processes_of_a_run_share_its_slot_s_threads(said, given):
    of_slot = local.of_slot(local.Slot(None, 4), Job("", ["seed=0"], devices=2, threads=said))
    assert of_slot == [f"engine.threads={threads}" for threads in given]
    assert local.of_slot(local.Slot(None, 1), Job("", [], devices=2)) == ["engine.threads=1"]


def test_gpus_are_asked_for_without_torch(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local.visible_gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!{sys.executable}\nprint('0')\nprint('1')\n")
    tool.chmod(0o755)
    assert local.visible_gpus() == ["0", "1"]


@pytest.mark.parametrize(
    ("named", "found"), [("", []), ("-1", []), ("NoDevFiles", []), ("0,1", ["0", "1"]), ("0, 2,-1,3", ["0", "2"])]
)
def test_gpus_are_named_as_cuda_reads_them(named, found, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert local.visible_gpus() == found


def submission(pid, *jobs):
    return Submission(
        "local", ["+sweep=mini"], [Job(job, [job]) for job in jobs], "logs/1", "now", process=this_process(pid)
    )


def test_what_a_launcher_that_lives_has_in_line_is_queued(tmp_path):
    file = submission(os.getpid(), "a", "b").write(tmp_path)
    assert file == tmp_path / "1.json"
    (read,) = read_all(tmp_path)
    assert read == submission(os.getpid(), "a", "b")
    assert scheduled([read]) == {"a": "queued", "b": "queued"}


def test_what_has_ended_in_a_launcher_that_lives_is_no_longer_in_line(tmp_path):
    there = submission(os.getpid(), "a", "b")
    ended = replace(there, logs=str(tmp_path))
    (tmp_path / "0.ended").write_text("1")
    assert scheduled([ended]) == {"b": "queued"}


def test_a_launcher_that_is_gone_has_nothing_in_line():
    parent = this_process(os.getpid())
    assert is_alive(parent)
    assert not is_alive(parent | {"began": "1"})  # its number is another process's now
    assert not is_alive(parent | {"boot": "elsewhere"})
