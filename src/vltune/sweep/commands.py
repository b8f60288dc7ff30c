"""`vltune sweep plan|submit|status|retry|cancel|choose`."""

from __future__ import annotations

import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vltune.errors import UserError
from vltune.values import finite, key_of

if TYPE_CHECKING:
    from vltune.sweep.job import Job
    from vltune.sweep.plan import Plan
    from vltune.sweep.status import Standing
    from vltune.sweep.submission import Submission

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
LOOK = 2.0  # seconds between two looks of --live

_Name = Annotated[
    str, typer.Argument(help="A file of sweeps/, without .yaml; unnamed: of runs that were started without one.")
]
_Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="As of run.py: method=apt seed=0,1 results_dir=DIR hydra/launcher=slurm. What was submitted with "
        "a results_dir is found with it."
    ),
]
_Project = Annotated[Path, typer.Option(help="Folder of run.py, conf/ and sweeps/.")]


@app.callback()
def main() -> None:
    """Sweeps as a whole: what they are, starting them, how they stand.

    A sweep is a file of sweeps/, and overrides after its name change it as they do for `python run.py -m +sweep=NAME`.  All
    follows from the records: whoever started the runs, and however often.

    \b
      vltune sweep plan mini                           what would run, for how long, and what is missing
      vltune sweep submit mini                         start it here, and leave the terminal
      vltune sweep submit table_meter hydra/launcher=slurm hydra.launcher.partition=gpu
      vltune sweep status mini --live
      vltune sweep retry mini --cause memory
      vltune sweep cancel mini
      vltune sweep choose results/learning_rates       the best rates on validation, as configuration
    """


@app.command()
def plan(
    name: _Name,
    overrides: _Overrides = None,
    runs: Annotated[bool, typer.Option("--runs", help="List every run with its command.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(help="MACs a second in training, where no record tells (an A100 in bfloat16: some 5e13).", min=1),
    ] = None,
    project: _Project = Path(),
) -> None:
    """List what would run, with time, memory, disk and what is missing; no run is started, only toy data is made.

    Times are of finished runs of the same kind in the folder of results; where there are none, of the MACs that mode=cost
    counted and a rate.
    """
    from rich.console import Console

    from vltune.sweep import estimate, launch
    from vltune.sweep import plan as plans
    from vltune.sweep.local import slots
    from vltune.sweep.render import duration, estimates

    finite("--rate", rate)
    planned = plans.plan(project, arguments(name, overrides))
    launch.tell_alike(planned)
    found = launch.standings(planned)
    waiting = [launch.is_due(each) or each.state == "missing" for each in found]
    roots = list(dict.fromkeys([planned.root, project / "results"]))
    lines = list(estimate.lines(planned, waiting, estimate.Estimator(roots, rate)))
    Console(highlight=False, markup=False).print(estimates(lines))
    if runs:
        for each in found:
            typer.echo(f"{each.state:8} {each.run.command}")
    seconds = estimate.total(line.seconds for line in lines)
    typer.echo(f"{len(found)} runs, {sum(waiting)} to do: {duration(seconds)} of one run after the other")
    if planned.launcher["name"] == "local" and seconds is not None:
        devices = max((each.run.devices for each in found), default=1)
        at_once = min(len(slots(planned.launcher.get("parallel"), devices)), sum(waiting) or 1)
        typer.echo(f"here, {at_once} at a time: about {duration(seconds / at_once)}")
    for what, count in launch.missing(found).items():
        typer.echo(f"missing for {count} runs: {what}")


@app.command()
def submit(name: _Name, overrides: _Overrides = None, project: _Project = Path()) -> None:
    """Start what is not finished, and return: the runs outlive this terminal.

    Where data or weights are missing nothing is started.  Failed runs are left to `vltune sweep retry`.

    \b
      vltune sweep submit mini
      vltune sweep submit mini hydra.launcher.parallel=4
      vltune sweep submit table_meter hydra/launcher=slurm hydra.launcher.gpus_per_task=1
    """
    from vltune.sweep import launch
    from vltune.sweep import plan as plans
    from vltune.sweep.job import job

    planned = plans.plan(project, arguments(name, overrides))
    launch.tell_alike(planned)
    found = launch.standings(planned)
    if missing := launch.missing(found):
        raise UserError("; ".join(f"{count} runs cannot start: {what}" for what, count in missing.items()))
    due = [job(each.run) for each in found if each.state != "failed" and launch.is_due(each)]
    start(planned, due, found)


@app.command()
def status(
    name: _Name,
    overrides: _Overrides = None,
    live: Annotated[bool, typer.Option("--live", help="Look again every two seconds; Ctrl-C ends it.")] = False,
    runs: Annotated[bool, typer.Option("--runs", help="List every run.")] = False,
    project: _Project = Path(),
) -> None:
    """Tell how a sweep stands.  Without overrides: as it was submitted last.

    todo; queued; running, with step, rate and time left; finished; stopped: interrupted, and saved; failed; stale: killed,
    or its machine is gone, or its disk is full; missing: its data or weights are not there.
    """
    from rich.console import Console
    from rich.live import Live

    from vltune.sweep import launch
    from vltune.sweep.render import shown

    planned = as_submitted(project, name, overrides)
    console = Console(highlight=False, markup=False)
    if not live:
        console.print(shown(planned, launch.standings(planned), runs))
        return
    try:
        with Live(console=console, auto_refresh=False) as screen:
            while True:
                found = launch.standings(planned)
                screen.update(shown(planned, found, runs), refresh=True)
                if not any(each.state in ("queued", "running") for each in found):
                    return
                time.sleep(LOOK)
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None


@app.command()
def retry(
    name: _Name,
    overrides: _Overrides = None,
    cause: Annotated[
        str | None, typer.Option(help="Only what failed for this: see the table of `vltune sweep status`.")
    ] = None,
    project: _Project = Path(),
) -> None:
    """Start again what failed or was killed; it goes on from its last checkpoint.

    With force=true it begins anew.  What ran out of memory gets half the micro-batch: the same examples in smaller parts,
    for which dropout draws anew.
    """
    from vltune.sweep import launch

    planned = as_submitted(project, name, overrides)
    found = launch.standings(planned)
    ended = [each for each in found if each.state in ("failed", "stale")]
    if cause is not None:
        causes = Counter(each.cause for each in ended)
        if cause not in causes:
            known = ", ".join(f"{name} ({count})" for name, count in sorted(causes.items())) or "none failed"
            raise UserError(f"--cause {cause}: no run failed for that; there are: {known}")
        ended = [each for each in ended if each.cause == cause]
    begin = again if any(key_of(each) == "force" for each in overrides or ()) else going_on
    start(planned, [begin(each) for each in ended], found)


@app.command()
def cancel(name: _Name, project: _Project = Path(), overrides: _Overrides = None) -> None:
    """Stop what was submitted: running runs save, and `vltune sweep submit` goes on with them.

    With overrides: each submission that has one of these runs to do, as a whole.  Without: all.
    """
    from vltune.sweep import launch, slurm
    from vltune.sweep.submission import read_all, stop

    planned = as_submitted(project, name, overrides)
    found = launch.standings(planned)
    working = {each.run.command for each in found if each.state in ("queued", "running")}
    submissions = [each for each in read_all(planned.folder) if works_on(each, working if overrides else None)]
    if not submissions and not working:
        typer.echo(f"{name}: nothing of it is queued or running")
        return
    arrays = [array for each in submissions for array in each.arrays]
    if arrays:
        slurm.cancel(arrays)
    stopped = sum(stop(each.process, signal.SIGTERM) for each in submissions if each.process)
    asked = [f"SLURM {' '.join(arrays)}"] if arrays else []
    asked += [f"{stopped} launcher{'s' if stopped > 1 else ''} here"] if stopped else []
    elsewhere = f"was not submitted from this machine{', or in other words' if overrides else ''}"
    typer.echo(f"asked to stop: {', '.join(asked)}" if asked else f"{name}: runs, but {elsewhere}")


@app.command()
def choose(
    results: Annotated[Path, typer.Argument(help="Results of a sweep of learning rates, scored on validation alone.")],
    out: Annotated[Path, typer.Option(help="Folder of BACKBONE.yaml.")] = Path("conf/rates"),
) -> None:
    """Write the best learning rate of each method, by validation, as the configuration that all later runs read.

    Refused where methods had different numbers of trials, where a run is not finished, or has read the test split.

    \b
      python run.py -m +sweep=learning_rates results_dir=results/learning_rates
      vltune sweep choose results/learning_rates
    """
    from vltune.catalogue import methods
    from vltune.sweep.choose import write

    for file in write(results, out, methods(Path("conf"))):
        typer.echo(str(file))


def arguments(name: str, overrides: list[str] | None) -> list[str]:
    from vltune.sweep.plan import UNNAMED

    return [*([] if name == UNNAMED else [f"+sweep={name}"]), *(overrides or ())]


def as_submitted(project: Path, name: str, overrides: list[str] | None) -> Plan:
    """The sweep with these overrides, or with those of its last submission where there are none."""
    from vltune.sweep import plan as plans
    from vltune.sweep.submission import read_all

    planned = plans.plan(project, arguments(name, overrides))
    if overrides:
        return planned
    submitted = read_all(planned.folder)
    return plans.plan(project, submitted[-1].arguments) if submitted else planned


def works_on(submission: Submission, of: set[str] | None) -> bool:
    """Whether it has runs to do: of these commands, however their words are ordered, or of any."""
    from vltune.sweep.queue import scheduled
    from vltune.sweep.status import WAITING

    left = {command for command, word in scheduled([submission]).items() if word in WAITING}
    if of is None:
        return bool(left)
    return not {frozenset(command.split()) for command in of}.isdisjoint(frozenset(each.split()) for each in left)


def start(planned: Plan, jobs: list[Job], found: list[Standing]) -> None:
    from vltune.sweep import launch
    from vltune.sweep.status import counts

    if not jobs:
        counted = ", ".join(f"{count} {name}" for name, count in counts(found).items() if count)
        typer.echo(f"{planned.name}: nothing to start ({counted})")
        return
    typer.echo(f"{planned.name}: {launch.summary(launch.submit(planned, jobs))}")
    typer.echo(f"{planned.typed('status')} tells how it stands")


def going_on(each: Standing) -> Job:
    """The run as a retry starts it: not anew, though it was forced, where there is something to go on from."""
    from vltune.sweep.job import GOING_ON

    job, begun = again(each), each.run.force and each.record
    return replace(job, overrides=[*job.overrides, GOING_ON]) if begun else job


def again(each: Standing) -> Job:
    """The run, in smaller parts where memory ran out: of training, or of evaluation where that needed too much."""
    from vltune.engine.memory import WHOLE, smaller
    from vltune.sweep.job import job

    config = (each.record or {}).get("config", {})
    engine = config.get("engine")
    error = (each.record or {}).get("error") or ""
    if each.cause != "memory" or not engine or "lower engine.batch_size" in error or WHOLE in error:
        return job(each.run)
    if "engine.eval_batch_size=" not in error and is_computed_whole(config):
        return job(each.run)
    if "engine.eval_batch_size=" in error:
        return job(each.run, f"engine.eval_batch_size={max(1, engine['eval_batch_size'] // 2)}")
    share = engine["batch_size"] // (engine["devices"] * engine.get("nodes", 1))
    halved = each.record.get("out_of_memory") or []
    size = halved[-1]["micro_batch"] if halved else engine["micro_batch_size"] or share
    return job(each.run, f"engine.micro_batch_size={smaller(size, share) or 1}")


def is_computed_whole(config: dict) -> bool:
    """Whether a batch cannot be taken in parts, so that a smaller one is another run."""
    from vltune.configuration import find

    task = config.get("task", {}).get("_target_")
    return config.get("mode") == "pretrain" or (task is not None and find(task).whole_batches)
