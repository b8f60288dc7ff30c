"""Tuned models for others, and from them: `vltune export`, `vltune inspect`, `vltune import`, `vltune push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltune.cli.pictures import chosen_weights
from vltune.errors import UserError


def export(
    record: Annotated[Path, typer.Argument(help="A finished run's record, or an adapter file.", metavar="RECORD")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    format: Annotated[
        str,
        typer.Option(help="vltune: one file, any method; peft: for PEFT; merged: for transformers; diffusers: a LoRA."),
    ] = "vltune",
) -> None:
    """Write what a run tuned as others load it, with a model card.

    \b
      vltune export results/records/vilt/vqa-vqav2/apt-1a2b3c4d-seed0.json --out shared/apt
      vltune export results/records/vilt/vqa-vqav2/lora-1a2b3c4d-seed0.json --format peft --out shared/lora
      vltune export shared/lora-file.safetensors --format merged --out shared/vilt-vqa
    """
    from vltune.sharing.folder import FORMATS

    if format not in FORMATS:
        raise UserError(f"--format {format}: must be one of {', '.join(FORMATS)}")
    FORMATS[format](record, out)
    typer.echo(out)


def inspect(
    file: Annotated[Path, typer.Argument(help="An adapter file, or a record with its tuned parameters beside it.")],
) -> None:
    """Tell what an adapter file is: method, backbone, for which weights, which scores its run had.

    \b
      vltune inspect shared/apt/apt-1a2b3c4d-seed0.safetensors
    """
    from rich.console import Console
    from rich.table import Table

    from vltune.sharing.adapter import described

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in described(file):
        table.add_row(*line)
    Console(highlight=False, markup=False).print(table)


def import_lora(
    folder: Annotated[Path, typer.Argument(help="A folder of PEFT's, or a LoRA of diffusers' or kohya's.")],
    out: Annotated[Path, typer.Option(help="A new file, which `weights=` of a run takes.")],
    backbone: Annotated[str, typer.Option(help="The backbone that it was trained on, by its name here.")] = "vilt",
    weights: Annotated[
        str | None, typer.Option(help="The weights that it was trained on.", show_default="the backbone's own")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the backbone, such as backbone.model=sd21.")
    ] = None,
) -> None:
    """Fold a LoRA, DoRA or (IA)3 that was trained elsewhere, with PEFT or for Stable Diffusion, into a backbone's weights.

    \b
      vltune import ~/my-vilt-lora --backbone vilt --weights weights/vilt-b32-mlm --out weights/mine.safetensors
      vltune import style.safetensors --backbone stable_diffusion --out weights/style.safetensors
      vltune import style.safetensors --backbone stable_diffusion --set backbone.model=sd21 --out weights/style.safetensors
      python run.py backbone=vilt weights=weights/mine.safetensors method=apt
    """
    from vltune.assemble.adopt import adopted
    from vltune.settings.config import RunConfig
    from vltune.sharing.imported import convert
    from vltune.sweep.compose import configurations

    if out.exists():
        raise UserError(f"{out}: is there already; name a new file")
    chosen = [f"backbone={backbone}", *(settings or ())]
    config = configurations(Path(), [chosen])[0]
    if weights is not None:
        config["weights"] = chosen_weights(weights)
    layers = convert(folder, adopted(RunConfig.of(config), chosen).plain, out)
    typer.echo(f"{out}: {backbone} with an adapter at {layers} layers")


def push(
    folder: Annotated[Path, typer.Argument(help="What `vltune export` wrote.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub; made where it is not there, and private.")],
) -> None:
    """Send an exported folder to the Hugging Face Hub, by huggingface_hub and its login.

    \b
      vltune push shared/lora me/vilt-vqa-lora
    """
    from vltune.sharing.hub import send

    typer.echo(send(folder, repository))
