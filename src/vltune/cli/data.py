"""Data before the runs: `vltune prepare`, `vltune check`."""

from __future__ import annotations

import shlex
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from vltune.cli.stopping import stoppable
from vltune.errors import UserError

# Data set -> a module and its function (raw, out, *, max_bad, readers) -> {what: count}; vqav2's has min_answer_count too.
DATASETS = {
    "vqav2": ("vltune.data.prepare.vqav2", "prepare"),
    "nlvr2": ("vltune.data.prepare.nlvr2", "prepare"),
    "f30k": ("vltune.data.prepare.karpathy", "prepare_f30k"),
    "coco": ("vltune.data.prepare.karpathy", "prepare_coco"),
    "snli_ve": ("vltune.data.prepare.snli_ve", "prepare"),
}


def _place(text: str) -> Path:
    """A path; what an unset variable of the shell leaves is none, where the working folder would be taken."""
    if not text:
        raise UserError('"": no path; name a file or folder, . is the one where the command is given')
    return Path(text)


def prepare(
    dataset: Annotated[str, typer.Argument(help=f"One of: {', '.join(DATASETS)}.")],
    raw: Annotated[Path, typer.Option(help="Folder of the files as downloaded.", parser=_place, metavar="DIR")],
    out: Annotated[
        Path, typer.Option(help="Folder to write; runs take it as their data folder.", parser=_place, metavar="DIR")
    ],
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
    with stoppable():
        counts = getattr(import_module(module), function)(raw, out, **options)
    for name, count in counts.items():
        typer.echo(f"{name}: {count}")


def shapes(
    layout: Annotated[str, typer.Argument(help="One of: vqav2, nlvr2, f30k, coco, snli_ve.")],
    out: Annotated[
        Path, typer.Option(help="Folder to write; one that is empty or not there yet.", parser=_place, metavar="DIR")
    ],
    images: Annotated[
        str,
        typer.Option(
            help="How many of each split (nlvr2: pairs, even; snli_ve: multiples of 4).",
            metavar="SPLIT=N,...",
            show_default="train=30,val=10,test=10, or so many that fit",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="What is drawn follows from it.")] = 0,
) -> None:
    """Write the toy world as a data set's official raw files, to try `vltune prepare` on without these, and to break it.

    Nothing is prepared.  The folder appears complete or not at all.

    \b
      vltune shapes f30k --out /tmp/f30k
      vltune prepare f30k --raw /tmp/f30k --out /tmp/f30k-data
      vltune check /tmp/f30k-data
      python run.py task=retrieval backbone=vilt_mini dataset=f30k dataset.data_dir=/tmp/f30k-data
      vltune shapes nlvr2 --out /tmp/nlvr2 --images train=200,val=50,test=50 --seed 1
    """
    from vltune.data.shapes import write

    with stoppable():
        written = write(layout, out, _counts(images), seed)
    what = "pairs of images" if layout == "nlvr2" else "images"
    counts = ", ".join(f"{count} {split}" for split, count in written.items())
    typer.echo(f"{out}: the toy world as raw files of {layout}, {what}: {counts}; go on with")
    more = ["--min-answer-count", "1"] if layout == "vqav2" else []
    command = ["vltune", "prepare", layout, "--raw", str(out), "--out", f"{out}-data", *more]
    typer.echo(f"  {shlex.join(command)}")


def _counts(text: str) -> dict[str, int]:
    """`train=30,val=10`"""
    counts: dict[str, int] = {}
    for part in text.split(",") if text else ():
        split, _, count = (each.strip() for each in part.partition("="))
        if not split or not (count.isascii() and count.isdigit()) or split in counts:
            raise UserError(f"--images={text}: give each split and how many images, as in train=30,val=10,test=10")
        counts[split] = int(count)
    return counts


def check(
    data: Annotated[
        Path, typer.Argument(help="Folder that runs read, or one Arrow file.", parser=_place, metavar="DIR")
    ],
    readers: Annotated[
        int | None, typer.Option(help="Processes that decode images.", min=1, show_default="all cores")
    ] = None,
) -> None:
    """Look at all that runs would read: every image is decoded, every label looked at, everything counted.

    No image may be in a training and in a test split or have more than 8 bits, no question id stand twice, no split be
    empty.  Images with an EXIF orientation or transparency are counted.  Exit status 1 where anything is wrong.

    \b
      vltune check data/vqav2
      vltune check ~/vilt_arrows/f30k_caption_karpathy_test.arrow
    """
    from rich.console import Console
    from rich.table import Table

    from vltune.data.checking import check as check_folder

    with stoppable():
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
