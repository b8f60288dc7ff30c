"""Data before the runs: `vltune prepare`, `vltune check`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from vltune.errors import UserError

# Data set -> a module and its function (raw, out, *, max_bad, readers) -> {what: count}; vqav2's has min_answer_count too.
DATASETS = {
    "vqav2": ("vltune.data.prepare.vqav2", "prepare"),
    "nlvr2": ("vltune.data.prepare.nlvr2", "prepare"),
    "f30k": ("vltune.data.prepare.karpathy", "prepare_f30k"),
    "coco": ("vltune.data.prepare.karpathy", "prepare_coco"),
    "snli_ve": ("vltune.data.prepare.snli_ve", "prepare"),
}


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
    counts = getattr(import_module(module), function)(raw, out, **options)
    for name, count in counts.items():
        typer.echo(f"{name}: {count}")


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
