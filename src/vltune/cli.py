"""`vltune`: everything that is not an experiment.  Experiments start with `python run.py`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from vltune import __version__
from vltune.errors import BadExampleError, UserError

# Data set -> a module and its function (raw, out, *, max_bad) -> {what: count}; vqav2's takes min_answer_count too.
DATASETS = {
    "vqav2": ("vltune.data.vqav2", "prepare"),
    "nlvr2": ("vltune.data.nlvr2", "prepare"),
    "f30k": ("vltune.data.karpathy", "prepare_f30k"),
    "coco": ("vltune.data.karpathy", "prepare_coco"),
    "snli_ve": ("vltune.data.snli_ve", "prepare"),
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
    Train, evaluate, measure, write one record:
      python run.py method=apt backbone=vilt task=vqa

    \b
    Records to a table and a figure, printed and in results/:
      vltune report mini
      vltune report vilt --out /tmp/paper --format tex,svg
    """


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
) -> None:
    """Turn a data set's raw files into what runs read, and print how many there are of what.

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
    options = {"max_bad": max_bad}
    if min_answer_count is not None:
        if dataset != "vqav2":
            raise UserError(f"--min-answer-count={min_answer_count}: {dataset} has no such option; leave it out")
        options["min_answer_count"] = min_answer_count
    module, function = DATASETS[dataset]
    counts = getattr(import_module(module), function)(raw, out, **options)
    for name, count in counts.items():
        typer.echo(f"{name}: {count}")


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
