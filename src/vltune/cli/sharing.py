"""Tuned models for others: `vltune export`, `vltune inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltune.errors import UserError


def export(
    record: Annotated[Path, typer.Argument(help="A finished run's record, or an adapter file.", metavar="RECORD")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    format: Annotated[
        str, typer.Option(help="vltune: one file, any method; peft: for transformers and PEFT.")
    ] = "vltune",
) -> None:
    """Write what a run tuned as others load it, with a model card.

    \b
      vltune export results/records/vilt/vqa-vqav2/apt-1a2b3c4d-seed0.json --out shared/apt
      vltune export results/records/vilt/vqa-vqav2/lora-1a2b3c4d-seed0.json --format peft --out shared/lora
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
