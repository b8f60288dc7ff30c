"""Runs that are killed, stopped, started twice or run anew, or whose disk is full: the same command ends with the same
numbers."""

import errno
import itertools
import multiprocessing
import os
import random
import signal
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from pyarrow import parquet

from vltune import atomic, experiment
from vltune.records import record as records
from vltune.runs import lock

# What a run imports on its way is imported once, for all of them.
IMPORTED = [
    import_module(f"vltune.{name}")
    for name in ("costs.macs", "costs.usage", "engine.artifacts", "engine.train", "evaluators.per_example", "tasks.vqa")
]

fork = multiprocessing.get_context("fork")
CONF = Path(__file__).parents[2] / "conf"
OVERRIDES = [
    "method=lora",
    "engine.max_steps=6",
    "engine.batch_size=8",
    "engine.eval_batch_size=32",
    "engine.checkpoint_seconds=0",
    "engine.threads=1",
    "dataset.generate={layout: '${task.layout}', seed: 0, images: {train: 40, val: 8, test: 12}}",
]


def process(shared, results, prepare=lambda: None, *overrides, name="run"):
    """The run, started in a process of its own.  What it prints goes to the files `NAME.out` and `NAME.err`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        places = [f"dataset.data_dir={shared / 'world'}", f"results_dir={results}"]
        config = compose("run", [*OVERRIDES, *places, *overrides])

    def work():
        for stream, suffix in ((sys.stdout, ".out"), (sys.stderr, ".err")):
            file = results.with_name(f"{name}{suffix}")
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
        prepare()
        experiment.run(config, [])

    started = fork.Process(target=work)
    started.start()
    return started


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def straight(shared):
    """Results of the run that nothing befell."""
    run = process(shared, shared / "straight")
    run.join()
    assert run.exitcode == 0
    return shared / "straight"


@pytest.fixture
def start(shared, tmp_path):
    return partial(process, shared, tmp_path / "results")


@pytest.fixture
def status(start):
    """The exit status of a run."""

    def status(*how, **named):
        run = start(*how, **named)
        run.join()
        return run.exitcode

    return status


def recorded(folder):
    (file,) = folder.glob("records/**/*.json")
    return records.read(file), file


def seconds_of(folder):
    return recorded(folder)[0]["provenance"]["seconds"]


def result(folder):
    """All that a run decides."""
    record, file = recorded(folder)
    rows = parquet.read_table(file.with_suffix(".parquet")).to_pylist()
    return [record[key] for key in ("status", "metrics", "history", "selected")], rows


def left(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def at(name, which, act, renamed=False):
    """In a run's process: has `act` called at the so-manyth write of a file of that name's end, before or after the file
    takes its name."""
    count, replace = itertools.count(1), Path.replace

    def replace_and_act(self, target):
        due = str(target).endswith(name) and Path(target).name != lock.NAME and next(count) == which
        if due and not renamed:
            act()
        replace(self, target)
        if due and renamed:
            act()

    def prepare():
        atomic.Path.replace = replace_and_act

    return prepare


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_is_killed_at_whatever_it_writes_ends_the_same(status, tmp_path, straight):
    writes = [("json", 1, True), ("last.pt", 2, False), ("last.pt", 2, True)]
    writes += [("parquet", 1, False), ("safetensors", 1, True), ("json", 2, False)]
    for name, which, renamed in writes:
        assert status(at(name, which, kill, renamed)) == -signal.SIGKILL
    assert status() == 0
    assert result(tmp_path / "results") == result(straight)
    assert left(tmp_path / "results") == left(straight)


def test_a_run_that_is_killed_at_any_moment_ends_the_same(start, status, tmp_path, straight):
    seconds, moments = seconds_of(straight), random.Random(0)
    for _ in range(4):
        process = start()
        process.join(moments.random() * seconds)
        process.kill()
        process.join()
    assert status() == 0
    assert result(tmp_path / "results") == result(straight)
    assert left(tmp_path / "results") == left(straight)


def full_disk():
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_line_and_loses_nothing(status, tmp_path, straight):
    for name, which in (("last.pt", 3), ("parquet", 1), ("safetensors", 1), ("json", 2)):
        assert status(at(name, which, full_disk)) == 2
        (line,) = (tmp_path / "run.err").read_text().splitlines()
        assert line.startswith("error: ")
        assert f"{name} cannot be written here (No space left on device): free space, or name another folder" in line
    assert status() == 0
    assert result(tmp_path / "results") == result(straight)
    assert left(tmp_path / "results") == left(straight)


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_once_and_ends_the_same(status, tmp_path, straight, signum):
    asked = at("last.pt", 3, lambda: signal.raise_signal(signum))
    assert status(asked) == 128 + signum
    name = signal.Signals(signum).name
    assert (tmp_path / "run.err").read_text() == f"stopped by {name}: saved; the same command resumes it\n"
    assert recorded(tmp_path / "results")[0]["status"] == "interrupted"
    assert not list((tmp_path / "results").rglob(lock.NAME))
    assert status() == 0
    assert result(tmp_path / "results") == result(straight)


def test_a_run_that_is_asked_to_stop_while_it_is_built_saves_what_there_is(status, tmp_path, straight):
    assert status(at("json", 1, lambda: signal.raise_signal(signal.SIGUSR2))) == 128 + signal.SIGUSR2
    assert recorded(tmp_path / "results")[0]["status"] == "interrupted"
    assert status() == 0
    assert result(tmp_path / "results") == result(straight)


@pytest.fixture
def stopping(start):
    """A run that stands still in the middle, and a function that lets it go on."""
    runs = []

    def stopping(prepare=lambda: None):
        def prepare_and_stop():
            prepare()
            at("last.pt", 3, lambda: os.kill(os.getpid(), signal.SIGSTOP))()

        runs.append(start(prepare_and_stop, name="first"))
        os.waitid(os.P_PID, runs[-1].pid, os.WSTOPPED | os.WNOWAIT)
        return runs[-1]

    yield stopping
    for run in runs:
        run.kill()


def go_on(run):
    os.kill(run.pid, signal.SIGCONT)
    run.join()
    return run.exitcode


def printed(file):
    while not (text := file.read_text() if file.exists() else ""):
        time.sleep(0.01)
    return text


def test_of_two_who_start_the_same_run_one_works_and_the_other_waits(stopping, start, tmp_path, straight):
    first = stopping()
    second = start(name="second")
    (line,) = printed(tmp_path / "second.err").splitlines()
    assert f"process {first.pid}, since" in line
    assert line.endswith("): waiting (busy=leave does not)")
    assert go_on(first) == 0
    second.join()
    assert second.exitcode == 0
    assert (tmp_path / "second.out").read_text().startswith("finished before")
    assert "finished before" not in (tmp_path / "first.out").read_text()
    assert result(tmp_path / "results") == result(straight)
    assert left(tmp_path / "results") == left(straight)


def test_of_two_who_start_the_same_run_one_works_and_the_other_leaves(stopping, status, tmp_path):
    first = stopping()
    assert status(lambda: None, "busy=leave", name="second") == 75
    lines = (tmp_path / "second.err").read_text().splitlines()
    assert f"process {first.pid}, since" in lines[0]
    assert lines[1].endswith("left to the process that works on it")
    assert go_on(first) == 0


def impatient():
    lock.BEAT, lock.STALE, lock.SURE = 0.05, 0.5, 0.1


def test_an_owner_that_slept_until_another_had_done_its_run_writes_nothing(stopping, status, tmp_path, straight):
    first = stopping(impatient)
    assert status(impatient, name="second") == 0
    assert go_on(first) == 75
    assert "taken over, and finished, while this process stood still" in (tmp_path / "first.err").read_text()
    assert result(tmp_path / "results") == result(straight)
    assert left(tmp_path / "results") == left(straight)


def test_who_waits_can_be_stopped_and_touches_nothing(stopping, start, tmp_path):
    first = stopping()
    second = start(name="second")
    printed(tmp_path / "second.err")
    second.terminate()
    second.join()
    assert second.exitcode == 128 + signal.SIGTERM
    assert (tmp_path / "second.err").read_text().splitlines()[-1] == "stopped by SIGTERM: nothing was begun"
    assert go_on(first) == 0


def replaced(folder):
    return sorted(path.name for path in folder.glob("replaced/*/*/*/*"))


def test_a_forced_run_keeps_the_record_and_is_itself_resumed(status, tmp_path, straight):
    anew = "force=true"
    assert status() == 0
    first, file = recorded(tmp_path / "results")
    assert status(at("last.pt", 3, kill), anew) == -signal.SIGKILL
    (kept,) = (tmp_path / "results").glob("replaced/*/*/*")
    assert records.read(kept / file.name) == first
    assert replaced(tmp_path / "results") == sorted(
        file.with_suffix(s).name for s in (".json", ".parquet", ".safetensors")
    )

    again = at("last.pt", 6, lambda: os._exit(77))  # six saves are left to one that begins at the first step
    assert status(again, anew) == 0
    assert len(replaced(tmp_path / "results")) == 3
    assert result(tmp_path / "results") == result(straight)

    assert status(lambda: None, anew) == 0
    assert len(replaced(tmp_path / "results")) == 6
    assert result(tmp_path / "results") == result(straight)


def test_a_forced_run_that_fails_leaves_what_was_there(status, tmp_path, straight):
    assert status() == 0
    assert status(at("last.pt", 3, full_disk), "force=true") == 2
    lines = (tmp_path / "run.err").read_text().splitlines()
    assert lines[0].startswith("the finished run that was here is kept in ")
    assert len(replaced(tmp_path / "results")) == 3
    assert recorded(tmp_path / "results")[0]["status"] == "failed"
