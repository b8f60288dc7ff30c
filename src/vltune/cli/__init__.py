"""`vltune`: everything that is not an experiment.  Experiments start with `python run.py`."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import typer
from typer.core import TyperGroup

from vltune import __version__
from vltune.cli import answers, checkpoints, data, mirror, pictures, records, settings, sharing
from vltune.cli.places import with_places
from vltune.command_line import is_users, leave
from vltune.errors import UserError
from vltune.sweep import commands as sweep


class _Group(TyperGroup):
    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        for before, each in pairwise(["", *args]):  # an empty path would be this folder
            if not each or (each.startswith("--") and each.endswith("=")):
                name = each.rstrip("=") or (before if before.startswith("--") else "an argument")
                leave(UserError(f"{name} is empty: an unset variable of the shell leaves nothing"))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> object:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            if not isinstance(error, KeyboardInterrupt) and not is_users(error):
                raise
            leave(error)


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
    What images show, by CLIP as it is or as a run tuned it:
      vltune classify --weights weights/clip-vit-base-patch16 --image photo.jpg --classes "cat,dog"

    \b
    What a diffusion model paints, as a run tuned it:
      vltune generate results/records/sd_mini/.../lora-1a2b3c4d-seed0.json --prompt "a z square at the top left"

    \b
    What a run tuned, as one file or for transformers and PEFT:
      vltune export results/records/vilt/vqa-vqav2/lora-1a2b3c4d-seed0.json --format peft --out shared/lora

    \b
    What a setting is and takes:
      vltune explain engine.lr

    \b
    Records to a table and a figure, printed and in results/:
      vltune report mini
      vltune report vilt --out /tmp/paper --format tex,svg

    \b
    Two folders of results side by side; records from elsewhere into one:
      vltune compare results ~/before/results
      vltune merge ~/gpu-server/results

    \b
    The predictions of all runs of a folder in one file, a sixth as large:
      vltune pack
    """


for command in (
    data.prepare,
    data.check,
    data.shapes,
    records.report,
    records.findings,
    records.power,
    records.compare,
    records.merge,
    records.pack,
    answers.submission,
    answers.score,
    mirror.wandb_sync,
    checkpoints.weights,
    pictures.classify,
    pictures.generate,
    pictures.judge,
    sharing.export,
    sharing.inspect,
    sharing.push,
    settings.explain,
):
    app.command()(command)
app.command("import")(sharing.import_lora)
app.add_typer(sweep.app, name="sweep")
for typed in (*app.registered_commands, *sweep.app.registered_commands):
    typed.callback = with_places(typed.callback)
