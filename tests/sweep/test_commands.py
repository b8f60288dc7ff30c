"""`vltune sweep` as a user types it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import torch
from test_cli import invoke

from vltune.experiment.readiness import check_writable
from vltune.sweep import commands
from vltune.sweep import plan as plans
from vltune.sweep.job import job
from vltune.sweep.submission import Submission, new_folder, read_all, this_process

VLTUNE = str(Path(sys.executable).with_name("vltune"))
WORLD = "{layout: '${task.layout}', seed: 0, images: {train: 60, val: 20, test: 30}}"


def ask(command, *arguments, status=0):
    done = forked.run(VLTUNE, "sweep", command, *arguments, timeout=120)
    assert done.returncode == status, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tmp_path_factory.mktemp("world") / "shapes"


@pytest.fixture
def sweep(world, tmp_path):
    """Two runs."""
    return [
        "mini_vqa",
        "method=lora",
        "seed=0,1",
        "engine.batch_size=8",
        "engine.eval_batch_size=32",
        "engine.checkpoint_seconds=0.1",
        f"dataset.data_dir={world}",
        f"dataset.generate={WORLD}",
        f"results_dir={tmp_path / 'results'}",
    ]


def until(told, *arguments):
    return looked_at(lambda said: told in said, *arguments)


def looked_at(enough, *arguments):
    """By this process, which has imported what a new one would import each time."""
    for _ in range(1200):
        if enough(said := invoke("sweep", "status", *arguments).output):
            return said
        time.sleep(0.05)
    pytest.fail(said)


def test_a_sweep_is_planned_submitted_cancelled_and_ended(sweep, tmp_path):
    long = [*sweep, "+match=params", "engine.max_steps=400"]  # where a run has more to do than the imports of a copy
    assert "2 runs, 2 to do" in ask("plan", *long)
    assert "2 todo" in ask("status", *long)
    assert "2 runs, process" in ask("submit", *long)
    shown = until("of 400", *long)
    assert "running" in shown
    assert "asked to stop: 1 launcher here" in ask("cancel", *long)
    shown = looked_at(lambda said: "running" not in said and "queued" not in said, *long)
    assert "1 stopped" in shown or "2 stopped" in shown  # the other may not have begun

    assert "2 runs, process" in ask("submit", *long, "hydra.launcher.parallel=2")
    until("2 of 2 finished", *long)
    assert "nothing to start (2 finished)" in ask("submit", *long)
    assert "nothing to start (2 finished)" in ask("retry", *long)
    assert "nothing of it is queued or running" in ask("cancel", *long)
    assert "2 runs, 0 to do" in ask("plan", *long)


def test_failed_runs_are_told_and_retried_by_cause(sweep, tmp_path):
    torch.save({"other": torch.zeros(1)}, tmp_path / "foreign.pt")
    failing = [*sweep, "engine.max_steps=4", f"weights={tmp_path / 'foreign.pt'}"]
    ask("submit", *failing)
    shown = until("2 failed", *failing)
    assert "configuration" in shown
    assert "a foreign checkpoint" in " ".join(shown.split())
    assert "--cause memory: no run failed for that; there are: configuration (2)" in ask(
        "retry", *failing, "--cause", "memory", status=2
    )
    assert "nothing to start" in ask("submit", *failing)
    assert "2 runs, process" in ask("retry", *failing, "--cause", "configuration")
    until("2 failed", *failing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "none_such"], "sweep=none_such: no such sweep; there are"),
        (["status", "mini", "metod=lora"], "metod=lora: the configuration has no metod; did you mean method?"),
        (
            ["submit", "mini", "hydra.launcher.parallel=0", "seed=9"],
            "hydra.launcher.parallel=0: must be a whole number, at least 1",
        ),
        (
            ["plan", "mini", "hydra/launcher=slurm", "hydra.launcher.timeout_min=4h"],
            "hydra.launcher.timeout_min=4h: must be a whole number, at least 1",
        ),
        (["plan", "mini", "seed=0,x"], "seed=x: must be a whole number from 0 to 4294967295"),
        (["plan", "mini", "engine.lr=1e-3,fast"], "engine.lr=fast: must be a number"),
        (["submit", "table_vilt"], "runs cannot start: "),
        (["plan", "mini", "mode=eval"], "mode=eval: say which record, from="),
        (["plan", "mini", "--project", "src"], "src: holds no conf/run.yaml"),
        (["plan", "mini", "--rate", "inf"], "error: --rate=inf: must be a finite number\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_start_nothing(arguments, message, tmp_path):
    done = invoke("sweep", *arguments, *([f"results_dir={tmp_path}"] if arguments[0] == "submit" else []))
    assert done.exit_code == 2
    assert message in done.output
    assert not list(tmp_path.rglob("*.json"))


@pytest.fixture
def submitted(tmp_path, monkeypatch):
    """Submissions of two grids without a name, each with a launcher that lives; -> {method: its launcher}, and `cancel`,
    which tells what it was asked."""
    launchers = {}

    def plan(*methods):
        names = {"backbone": "vilt_mini", "task": "vqa", "dataset": "shapes", "seed": 0}
        runs = [
            plans.Run(
                [f"method={each}", "seed=0"], each, **names, method=each, devices=1, nodes=1, force=False, places=[]
            )
            for each in methods
        ]
        return plans.Plan(Path(), "unnamed", ["x"], tmp_path, {"name": "local"}, [], [{}] * len(runs), runs)

    for methods in (("lora", "apt"), ("full",)):
        process = subprocess.Popen(["sleep", "60"])
        launchers |= dict.fromkeys(methods, process)
        logs, started = new_folder(tmp_path / "sweeps" / "unnamed")
        jobs = [job(each) for each in plan(*methods).runs]
        Submission("local", ["x"], jobs, str(logs), started, process=this_process(process.pid)).write(logs.parent)

    def cancel(*methods, overrides):
        monkeypatch.setattr(commands, "as_submitted", lambda *_: plan(*methods))
        commands.cancel("unnamed", overrides=overrides)

    yield launchers, cancel
    for process in launchers.values():
        process.kill()
        process.wait()


def ended(process):
    try:
        return process.wait(0.2) == -signal.SIGTERM
    except subprocess.TimeoutExpired:
        return False


def test_cancel_stops_the_submissions_of_the_runs_that_were_typed(submitted, capsys):
    launchers, cancel = submitted
    cancel("adapter", overrides=["method=adapter"])
    assert capsys.readouterr().out == "unnamed: nothing of it is queued or running\n"
    cancel("lora", overrides=["method=lora"])
    assert capsys.readouterr().out == "asked to stop: 1 launcher here\n"
    assert ended(launchers["lora"])
    assert not ended(launchers["full"])


def test_cancel_knows_runs_whose_words_are_in_another_order(submitted, tmp_path):
    lora, _ = read_all(tmp_path / "sweeps" / "unnamed")
    assert commands.works_on(lora, {"python run.py seed=0 method=apt hydra.mode=RUN"})
    assert not commands.works_on(lora, {"python run.py seed=1 method=apt hydra.mode=RUN"})


def test_cancel_without_overrides_stops_all_that_works_also_where_the_last_has_ended(submitted, capsys):
    launchers, cancel = submitted
    launchers["full"].kill()
    launchers["full"].wait()
    cancel("full", overrides=None)
    assert capsys.readouterr().out == "asked to stop: 1 launcher here\n"
    assert ended(launchers["lora"])


def test_a_folder_of_results_that_cannot_be_made_is_told_by_its_setting():
    """Some file systems answer a new folder with `No such file or directory`, for good."""
    told = ask("submit", "mini_vqa", "method=lora", "seed=9", "results_dir=/proc/x", status=2)
    assert told.endswith(
        "error: results_dir=/proc/x: cannot be written (No such file or directory); name another folder\n"
    )


@pytest.mark.parametrize("place", ["results", "new/results"])
def test_a_folder_that_others_make_and_remove_meanwhile_is_tried_again(place, tmp_path, monkeypatch):
    """As where two first processes ask for it at once."""
    folder, top = tmp_path / place, tmp_path / Path(place).parts[0]
    touch, mkdir = Path.touch, Path.mkdir
    others = [lambda: mkdir(top), lambda: folder.rmdir()]

    def disturbed(path, ask):
        if others:
            others.pop(0)()
        ask(path)

    monkeypatch.setattr(Path, "mkdir", lambda path: disturbed(path, mkdir))
    monkeypatch.setattr(Path, "touch", lambda path: disturbed(path, touch))
    check_writable("results_dir", folder)
    assert not others
    assert not any(folder.iterdir()) if folder.exists() else not folder.exists()
