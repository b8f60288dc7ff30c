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
    out: Annotated[Path | None, typer.Option(help="Write tables/ and figures/ here instead of into results.")] = None,
    format: Annotated[str, typer.Option(help="What to write, separated by commas.")] = "md,tex,csv,png,svg",
) -> None:
    """Print tables of the records, and write each with its figure.

    \b
      vltune report mini
      vltune report vilt --results-dir ~/shared/results --out /tmp/paper --format tex,svg
    """
    from rich.console import Console

    from vltune.results import render
    from vltune.results import report as write_report

    for built in write_report(table, results_dir, out, [name.strip() for name in format.split(",") if name.strip()]):
        Console(highlight=False).print(render.terminal(built))


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
    from vltune.weights.files import find

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in describe(inspect(find(file)), assemble.backbones(conf)):
        table.add_row(*line)
    Console(highlight=False, markup=False).print(table)
