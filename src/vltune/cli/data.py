"""Data before the runs: `vltune prepare`, `vltune check`, `vltune shapes`."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vltune.cli.pictures import checked_template, chosen_weights
from vltune.data.dataset import preparation, preparations
from vltune.data.shapes import layouts
from vltune.errors import UserError

if TYPE_CHECKING:
    from vltune.experiment.zero_shot import ZeroShotCheck

_CLASSES = 10  # that `check` shows


def prepare(
    dataset: Annotated[str, typer.Argument(help=f"One of: {', '.join(preparations())}.")],
    raw: Annotated[Path, typer.Option(help="Folder of the files as downloaded.")],
    out: Annotated[Path, typer.Option(help="Folder to write; runs take it as their data folder.")],
    min_answer_count: Annotated[
        int | None,
        typer.Option(
            help="Of answers that people typed (vqav2): keep those given at least this often.", min=1, show_default="9"
        ),
    ] = None,
    noun: Annotated[
        str | None,
        typer.Option("--class", help="Of your own pictures of a subject (dreambooth): what it is.", metavar="NOUN"),
    ] = None,
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--no-live", help="Beside that: whether it lives.", show_default="--live of a dog or a cat"
        ),
    ] = None,
    max_bad: Annotated[
        int, typer.Option(help="Unreadable images and bad entries to leave out (and count) before failing.", min=0)
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
      vltune prepare oxford_pets --raw ~/oxford_pets --out data/oxford_pets
      vltune prepare folder --raw ~/birds --out data/birds
      vltune prepare dreambooth --raw ~/dreambooth --out data/dreambooth
      vltune prepare dreambooth --raw ~/pictures/rex --class dog --out data/rex
      vltune prepare vqav2 --raw ~/vqa --out data/vqav2 --max-bad 3
    """
    if dataset not in preparations():
        raise UserError(f"data set {dataset!r} is not known: use one of {', '.join(preparations())}")
    options = {"max_bad": max_bad, "readers": readers}
    takes = inspect.signature(preparation(dataset)).parameters
    for name, (typed, value) in {
        "min_answer_count": (f"--min-answer-count={min_answer_count}", min_answer_count),
        "noun": (f"--class={noun}", noun),
        "live": ("--live" if live else "--no-live", live),
    }.items():
        if value is not None:
            if name not in takes:
                raise UserError(f"{typed}: {dataset} has no such option; leave it out")
            options[name] = value
    counts = preparation(dataset)(raw, out, **options)
    for name, count in counts.items():
        typer.echo(f"{name}: {count}")


def check(
    data: Annotated[Path, typer.Argument(help="Folder that runs read, or one Arrow file.", metavar="DIR")],
    readers: Annotated[
        int | None, typer.Option(help="Processes that decode images.", min=1, show_default="all cores")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="A CLIP, which tells what labelled images show: a folder, a file or a hub name."),
    ] = None,
    images: Annotated[int, typer.Option(help="So many images for it at most.", min=1)] = 500,
    template: Annotated[
        str | None, typer.Option(help="What a name stands in, at {}.", show_default="the data set's")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="quick_gelu or gelu, of a file that does not tell.", show_default="the file's")
    ] = None,
) -> None:
    """Look at all that runs would read: every image is decoded, every label looked at, everything counted.

    No image may be in a training and in a test split, no grey one have more than 8 bits, no question id stand twice, no
    split be empty.  Images with an EXIF orientation or transparency are counted.  Of labelled images the first class names
    are shown with their prompts, and with --weights how often CLIP tells what images of the test split show (without one,
    of the validation): near chance where the class names are wrong, or in another order than the labels.  Exit status 1
    where anything is wrong.

    \b
      vltune check data/vqav2
      vltune check data/oxford_pets
      vltune check data/oxford_pets --weights weights/clip-vit-base-patch16
      vltune check ~/vilt_arrows/f30k_caption_karpathy_test.arrow
    """
    from rich.console import Console
    from rich.table import Table

    from vltune.data.check.folder import check as check_folder

    zero_shot = ready_to_tell(data, weights, template, activation)
    found = check_folder(data, readers=readers)
    table = Table("split")
    for column in ("rows", "texts", "bytes", "problems"):
        table.add_column(column, justify="right")
    for line in found.lines:
        table.add_row(line.split, *(f"{n:,}" for n in (line.rows, line.texts, line.bytes, line.problems)))
    Console(highlight=False).print(table)
    for each in found.classes[:_CLASSES]:
        counts = ", ".join(f"{split} {count:,}" for split, count in each.images.items())
        typer.echo(f"class {each.label}, {each.name}: {each.prompt!r}; {counts}")
    if (more := len(found.classes) - _CLASSES) > 0:
        typer.echo(f"and {more:,} more classes")
    for told in [*found.notes, *found.problems]:
        typer.echo(told)
    if found.classes:
        tell(zero_shot, images)
    typer.echo(f"{found.count} {'problem' if found.count == 1 else 'problems'}" if found.count else "all is well")
    if found.count:
        raise typer.Exit(1)


def ready_to_tell(
    data: Path, weights: str | None, template: str | None, activation: str | None
) -> ZeroShotCheck | None:
    """None without weights."""
    for name, value in (("template", template), ("activation", activation)):
        if weights is None and value is not None:
            raise UserError(f"--{name} {value}: is of --weights; add these, or leave it out")
    if weights is None:
        return None
    from vltune.experiment.zero_shot import ZeroShotCheck

    return ZeroShotCheck(data, chosen_weights(weights), checked_template(template), activation)


def tell(zero_shot: ZeroShotCheck | None, images: int) -> None:
    """How often CLIP tells the classes, and which it mistakes."""
    if zero_shot is None:
        typer.echo("add --weights W, a CLIP, for its zero-shot accuracy: near chance where the class names are wrong")
        return
    found = zero_shot(images)
    typer.echo(found)
    for each in found.worst:
        told = f"{each.right} of {each.images} right, taken for {each.taken_for} ({each.times})"
        typer.echo(f"class {each.name}: {told}")
    if found.is_near_chance:
        typer.echo("near chance: these names stand in another order than the labels, or these weights do not know them")


def shapes(
    layout: Annotated[str, typer.Argument(help=f"One of: {', '.join(layouts.LAYOUTS)}.")],
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.")],
    images: Annotated[
        str | None,
        typer.Option(
            help="How many of each split; pairs of them in nlvr2.",
            metavar="SPLIT=N,...",
            show_default="30 of train, 10 of any other; of image classes 2 and 1 a class; dreambooth: 5 a subject",
        ),
    ] = None,
    seed: Annotated[str, typer.Option(help="Another number: other pictures and texts.", metavar="N")] = "0",
) -> None:
    """Write a toy world of coloured shapes as the raw files of a data set, to try `vltune prepare` on, or to break.

    The files lie, and are called, as the data set's authors publish them.  The same arguments give the same bytes.  What
    is said in them is true: questions have their right answers, captions hold of their images.

    \b
      vltune shapes vqav2 --out raw/vqav2
      vltune shapes vqav2 --out raw/large --images train=2000,val=500 --seed 1
      vltune shapes nlvr2 --out raw/nlvr2 --images train=30,val=10,test=10
      vltune shapes f30k --out raw/f30k --images train=30,val=10,test=10
      vltune shapes coco --out raw/coco --images train=30,restval=10,val=10,test=10
      vltune shapes snli_ve --out raw/snli_ve --images train=30,val=10,test=10
    """
    if layout not in layouts.LAYOUTS:
        raise UserError(f"layout {layout!r} is not known: use one of {', '.join(layouts.LAYOUTS)}")
    counts, number = {} if images is None else _counts(images), _whole(seed)
    layouts.check_images(layout, counts, 0, "--images")
    layouts.check_seed(number, "--seed")
    written = layouts.write(layout, out, counts, number)
    counted = ", ".join(f"{split} {count}" for split, count in written.items())
    typer.echo(f"{out}: {layout}, {counted} {layouts.LAYOUTS[layout].unit}")
    options = {f"--{name.replace('_', '-')}": value for name, value in layouts.LAYOUTS[layout].options.items()}
    arguments = {"--raw": out, "--out": f"{out}-prepared"} | options
    told = [text for option, value in arguments.items() for text in (option, str(value))]
    typer.echo(f"go on with: {shlex.join(['vltune', 'prepare', layout, *told])}")


def _counts(text: str) -> dict[str, int | str]:
    """`train=30,val=10`, by split."""
    counts: dict[str, int | str] = {}
    for part in text.split(","):
        split, equals, count = (each.strip() for each in part.partition("="))
        if not equals or not split:
            raise UserError(f"--images {text}: give numbers by split, such as train=30,val=10,test=10")
        if split in counts:
            raise UserError(f"--images {text}: {split} stands twice")
        counts[split] = _whole(count)
    return counts


def _whole(text: str) -> int | str:
    """The whole number that a text is, else the text."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else text
