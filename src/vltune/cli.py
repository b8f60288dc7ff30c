"""`vltune`: everything that is not an experiment.  Experiments start with `python run.py`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from vltune import __version__
from vltune.errors import BadExampleError, UserError
from vltune.sweep import commands as sweep_commands

# Data set -> a module and its function (raw, out, *, max_bad, readers) -> {what: count}; vqav2's has min_answer_count too.
DATASETS = {
    "vqav2": ("vltune.data.prepare.vqav2", "prepare"),
    "nlvr2": ("vltune.data.prepare.nlvr2", "prepare"),
    "f30k": ("vltune.data.prepare.karpathy", "prepare_f30k"),
    "coco": ("vltune.data.prepare.karpathy", "prepare_coco"),
    "snli_ve": ("vltune.data.prepare.snli_ve", "prepare"),
}


class _Group(TyperGroup):
    def invoke(self, ctx: typer.Context) -> object:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1 if isinstance(error, BadExampleError) else 2) from error


app = typer.Typer(
    cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None
)


app.add_typer(sweep_commands.app, name="sweep")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vltune {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Compare tuning methods of vision-language models: data before the runs, tables after them.

    \b
    Raw VQAv2 (images, questions, annotations) to what runs read:
      vltune prepare vqav2 --raw ~/vqa --out data/vqav2

    \b
    Decode, look at and count everything in a folder that runs read, whoever made it:
      vltune check data/vqav2

    \b
    Train, evaluate, measure, write one record:
      python run.py method=apt backbone=vilt task=vqa

    \b
    What a checkpoint is, and which backbone it fits:
      vltune weights weights/vilt_200k_mlm_itm.ckpt

    \b
    Records to a table and a figure, printed and in results/:
      vltune report mini
      vltune report vilt --out /tmp/paper --format tex,svg

    \b
    Two folders of results side by side; records from elsewhere into one:
      vltune compare results ~/before/results
      vltune merge ~/gpu-server/results
    """


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the command with one line and the status that a shell expects."""

    def stop(signum: int, frame: object) -> None:
        nonlocal status
        status = 128 + signum
        raise KeyboardInterrupt

    status = 128 + signal.SIGINT
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo(str(error) or "stopped", err=True)
        raise typer.Exit(status) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help=f"One of: {', '.join(DATASETS)}.")],
    raw: Annotated[Path, typer.Option(help="Folder of the files as downloaded.")],
    out: Annotated[Path, typer.Option(help="Folder to write; runs take it as their data folder.")],
    min_answer_count: Annotated[
        int | None, typer.Option(help="vqav2 only: keep answers given at least this often.", min=1, show_default="9")
    ] = None,
    max_bad: Annotated[
        int, typer.Option(help="Unreadable examples to leave out (and count) before failing.", min=0)
    ] = 0,
    readers: Annotated[
        int | None, typer.Option(help="Processes that read images.", min=1, show_default="by the machine")
    ] = None,
) -> None:
    """Turn a data set's raw files into what runs read, and print how many there are of what.

    Stopped by Ctrl-C or SIGTERM, or killed, it goes on from there when the same command is given again.  Which raw files
    each data set has, and where they come from: docs/data.md.

    \b
      vltune prepare vqav2 --raw ~/vqa --out data/vqav2
      vltune prepare nlvr2 --raw ~/nlvr2 --out data/nlvr2
      vltune prepare f30k --raw ~/flickr30k --out data/f30k
      vltune prepare coco --raw ~/coco --out data/coco
      vltune prepare snli_ve --raw ~/snli_ve --out data/snli_ve
      vltune prepare vqav2 --raw ~/vqa --out data/vqav2 --max-bad 3
    """
    if dataset not in DATASETS:
        raise UserError(f"data set {dataset!r} is not known: use one of {', '.join(DATASETS)}")
    options = {"max_bad": max_bad, "readers": readers}
    if min_answer_count is not None:
        if dataset != "vqav2":
            raise UserError(f"--min-answer-count={min_answer_count}: {dataset} has no such option; leave it out")
        options["min_answer_count"] = min_answer_count
    module, function = DATASETS[dataset]
    with _stoppable():
        counts = getattr(import_module(module), function)(raw, out, **options)
    for name, count in counts.items():
        typer.echo(f"{name}: {count}")


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="Folder that runs read, or one Arrow file.", metavar="DIR")],
    readers: Annotated[
        int | None, typer.Option(help="Processes that decode images.", min=1, show_default="all cores")
    ] = None,
) -> None:
    """Look at all that runs would read: every image is decoded, every label looked at, everything counted.

    No image may be in a training and in a test split, no question id stand twice.  Exit status 1 where anything is wrong.

    \b
      vltune check data/vqav2
      vltune check ~/vilt_arrows/f30k_caption_karpathy_test.arrow
    """
    from rich.console import Console
    from rich.table import Table

    from vltune.data.checking import check as check_folder

    with _stoppable():
        found = check_folder(data, readers=readers)
    table = Table("split")
    for column in ("rows", "texts", "bytes", "problems"):
        table.add_column(column, justify="right")
    for line in found.lines:
        table.add_row(line.split, *(f"{n:,}" for n in (line.rows, line.texts, line.bytes, line.problems)))
    Console(highlight=False).print(table)
    for told in [*found.notes, *found.problems]:
        typer.echo(told)
    typer.echo(f"{found.count} {'problem' if found.count == 1 else 'problems'}" if found.count else "all is well")
    if found.count:
        raise typer.Exit(1)


@app.command()
def report(
    table: Annotated[str, typer.Argument(help="Name of the table; a wrong one lists them.")],
    results_dir: Annotated[Path, typer.Option(help="Folder of records/ and paper/.")] = Path("results"),
    out: Annotated[
        Path | None, typer.Option(help="Write tables/, figures/ and html/ here instead of into results.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="What to write, separated by commas; html is one page of all tables, for a browser.")
    ] = "md,tex,csv,png,svg",
) -> None:
    """Print tables of the records, and write each with its figure.

    \b
      vltune report mini
      vltune report vilt --results-dir ~/shared/results --out /tmp/paper --format tex,svg
      vltune report mini --format html
    """
    from rich.console import Console

    from vltune import assemble
    from vltune.results import PAGE, page_file, render
    from vltune.results import report as write_report

    formats = [name.strip() for name in format.split(",") if name.strip()]
    for built in write_report(table, results_dir, out, formats, assemble.examples):
        Console(highlight=False).print(render.terminal(built))
    if PAGE in formats:
        typer.echo(page_file(table, out or results_dir))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Folder of results, or one that holds records.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="Another: after a change of the code, of another machine.", metavar="B")],
    out: Annotated[Path | None, typer.Option(help="Write the comparison to this file too.")] = None,
    format: Annotated[
        str | None,
        typer.Option(help="md, csv or json; printed where there is no --out.", show_default="by --out's name"),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="By how many percentage points scores may differ; implies the next.", min=0)
    ] = 0.0,
    fail_on_difference: Annotated[
        bool,
        typer.Option("--fail-on-difference", help="Exit status 1 where scores differ or a run finished in one alone."),
    ] = False,
) -> None:
    """Set two folders of records side by side: scores, predictions, costs, and where the runs come from.

    Runs are paired by their configuration (the hash in a record's name) and seed; where the hashes differ, with the nearest
    configuration of the same method, and what differs is said.  "B - A" is in percentage points.

    \b
      vltune compare results ~/before/results
      vltune compare results/records/meter_mini ~/other-machine/meter_mini --format md --out difference.md
      vltune compare results ~/nightly/results --tolerance 0.5
    """
    from rich.console import Console

    from vltune.engine.identity import settings
    from vltune.results import compare as comparing
    from vltune.results import compare_text
    from vltune.results.record import save

    format = format or (out.suffix[1:] if out else None)
    if format is not None and format not in compare_text.TEXT:
        raise UserError(f"format {format!r} is not known: use one of {', '.join(compare_text.TEXT)}")
    found = comparing.compare(a, b, settings)
    if out is None and format is not None:
        typer.echo(compare_text.TEXT[format](found), nl=False)
    else:
        Console(highlight=False).print(compare_text.terminal(found))
    if out is not None:
        save(out, compare_text.TEXT[format](found).encode())
    if (fail_on_difference or tolerance) and (failed := comparing.failures(found, tolerance)):
        for line in failed:
            typer.echo(f"differs: {line}", err=True)
        raise typer.Exit(1)


@app.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Folders of results, or that hold records.", metavar="FROM...")],
    into: Annotated[Path, typer.Option(help="Folder of results to copy them into.")] = Path("results"),
    prefer: Annotated[
        str | None,
        typer.Option(
            help="newer or theirs: which of two finished records of a run stays.", show_default="what is there"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
) -> None:
    """Copy records from elsewhere, with predictions and tuned parameters beside them, to their places in a results folder.

    A finished record takes the place of one that did not finish.  Where both finished with other content, what is there
    stays and the other is refused, unless --prefer says otherwise; what gives way goes to INTO/replaced.  Exit status 1
    where a file is broken.

    \b
      vltune merge ~/gpu-server/results
      vltune merge machine1/results machine2/results --into ~/all/results --prefer newer --dry-run
    """
    from rich.console import Console
    from rich.table import Table

    from vltune.results import merge as merging

    with _stoppable():
        merged = merging.merge(sources, into, prefer, dry_run)
    table = Table("from", title=f"{'would be ' if dry_run else ''}merged into {into}")
    for outcome in merging.OUTCOMES:
        table.add_column(outcome, justify="right")
    for source, files in merged.items():
        table.add_row(str(source), *(str(sum(file.outcome == name for file in files)) for name in merging.OUTCOMES))
    Console(highlight=False, markup=False).print(table)
    for file in (file for files in merged.values() for file in files):
        if dry_run or file.why or file.outcome in ("replaced", "refused", "broken"):
            typer.echo(f"{file.outcome}: {file.what}{f' ({file.why})' if file.why else ''}")
    if any(file.outcome == "broken" for files in merged.values() for file in files):
        raise typer.Exit(1)


_Record = Annotated[Path, typer.Argument(help="A run's record; its predictions lie beside it.", metavar="RECORD.json")]


@app.command()
def submission(
    record: _Record,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="submission-RECORD.json, in this folder")
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="The official question file: each of its questions must be answered, and no other."),
    ] = None,
    part: Annotated[
        bool, typer.Option("--part", help="Leave out answers to questions that the file lacks (test-dev of test).")
    ] = False,
) -> None:
    """Write a run's answers to VQA's test questions as the official server takes them.

    \b
      vltune submission results/records/vilt/vqa-vqav2/apt-0a1b2c3d-seed0.json \\
        --questions ~/vqa/v2_OpenEnded_mscoco_test2015_questions.json
    """
    from vltune.results import submission as submissions
    from vltune.results.official import entries

    answers = submissions.answers(record, "test")
    if questions is None:
        submissions.check_whole(record)
    else:
        wanted = entries(questions, "questions", lambda question: question["question_id"])
        answers = submissions.complete(answers, wanted, questions, part)
    file = submissions.write(out or Path(f"submission-{record.stem}.json"), answers)
    told = f"all questions of {questions.name}" if questions else "all questions that the run read"
    typer.echo(f"{file}: {len(answers):,} answers, {told}")
    if questions is None:
        typer.echo("--questions v2_OpenEnded_mscoco_test2015_questions.json checks it against the official list")
    typer.echo(f"upload it to {submissions.SERVER}: Test-Dev and Test-Standard both want all 447,793 of test2015")


@app.command()
def score(
    record: _Record,
    annotations: Annotated[Path, typer.Option(help="The official annotation file of the split.")],
    split: Annotated[str, typer.Option(help="val or test: whose predictions.")] = "val",
) -> None:
    """Score a run's answers as VQA's official program does: in all, by type of answer and by type of question.

    \b
      vltune score results/records/vilt/vqa-vqav2/apt-0a1b2c3d-seed0.json \\
        --annotations ~/vqa/v2_mscoco_val2014_annotations.json
    """
    from vltune.metrics.vqa import Annotation, evaluate
    from vltune.results import submission as submissions
    from vltune.results.official import entries

    answers = submissions.answers(record, split)
    result = evaluate(answers, entries(annotations, "annotations", Annotation.of))
    if result.unknown:
        raise UserError(
            f"{annotations}: lacks {len(result.unknown)} of the {len(answers)} questions of {split} that were answered, "
            f"such as {result.unknown[0]}: give the annotations of that split, or the other --split"
        )
    typer.echo(f"{record.stem}, {split}: {result.scored:,} of {result.annotated:,} annotated questions were answered")
    lines = {"overall": result.overall}
    lines |= {f"answer type: {kind}": accuracy for kind, accuracy in result.answer_type.items()}
    lines |= {f"question type: {kind}": accuracy for kind, accuracy in result.question_type.items()}
    width = max(map(len, lines))
    for name, accuracy in lines.items():
        typer.echo(f"{name:{width}} {accuracy:6.2f}")


@app.command("wandb-sync")
def wandb_sync(
    results_dir: Annotated[Path, typer.Option(help="Folder of records/.")] = Path("results"),
    project: Annotated[str, typer.Option(help="W&B project.")] = "vltune",
    entity: Annotated[str | None, typer.Option(help="User or team.", show_default="your default one")] = None,
    mode: Annotated[str, typer.Option(help="online: send; offline: write W&B's files into runs/.")] = "online",
    examples: Annotated[int, typer.Option(help="Predictions to show with their images; 0: none, faster.", min=0)] = 64,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
) -> None:
    """Mirror every finished record to Weights & Biases: what offline nodes computed, and what an outage kept back.

    A record has one W&B run, whose id follows from the record; one that W&B has as it stands is not sent again, one that
    changed is updated.  Exit status 1 where any could not be sent; the others are (docs/wandb.md).

    \b
      vltune wandb-sync
      vltune wandb-sync --results-dir ~/shared/results --project apt --entity team
    """
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from vltune import assemble
    from vltune.loggers.sync import sync
    from vltune.loggers.wandb import WandbLogger
    from vltune.results import store
    from vltune.results.record import run_folder

    logger, states = WandbLogger(project, mode, entity, examples=examples), Counter()

    def tell(name: str, state: str, why: object = None) -> None:
        states[state] += 1
        if state != "not tried":
            typer.echo(f"{state}: {name}{f': {why}' if why else ''}")

    runs = []
    for record in store.load(results_dir, lambda error: tell("broken record", "failed", error)):
        place = Path(record["path"])
        if record["status"] == "finished" and not store.is_cost(record):
            runs.append((record, results_dir / place, run_folder(results_dir, place)))
    with _stoppable():
        for file, state, why in sync(runs, logger, assemble.examples, dry_run):
            tell(str(file.relative_to(results_dir)), state, why)
    if states["not tried"]:
        typer.echo(f"W&B cannot be reached: {states['not tried']} records are not tried")
    table = Table("records", "number")
    for state, number in sorted(states.items()):
        table.add_row(state, str(number))
    Console(highlight=False).print(table)
    if states["failed"] or states["not tried"]:
        raise typer.Exit(1)


@app.command()
def weights(
    file: Annotated[str, typer.Argument(help="A checkpoint: what `weights=` of a run takes.")],
    conf: Annotated[
        Path, typer.Option(help="Folder of configurations; the file is tried on each of its backbones.")
    ] = Path("conf"),
) -> None:
    """Tell what a checkpoint is: its layout and sizes, its heads, which backbones it fits and what is done to it there.

    Names and shapes are read, no values; nothing in the file is run.  Sizes of images and patches are in pixels.

    \b
      vltune weights weights/meter_clip16_288_roberta_pretrain.ckpt
      vltune weights weights/vilt-b32-mlm
      vltune weights pkg://vltune/weights/meter_mini.safetensors
      vltune weights weights/ViT-B-16.pt --conf ~/vltune/conf
    """
    from rich.console import Console
    from rich.table import Table

    from vltune import assemble
    from vltune.weights.describe import describe, inspect
    from vltune.weights.finding import find

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in describe(inspect(find(file)), assemble.backbones(conf)):
        table.add_row(*line)
    Console(highlight=False, markup=False).print(table)
