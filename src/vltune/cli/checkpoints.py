"""What a checkpoint is: `vltune weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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

    from vltune.assemble.backbones import backbones
    from vltune.values import place
    from vltune.weights.describe import describe, inspect
    from vltune.weights.finding import PACKAGE, find

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    file = file if file.startswith(PACKAGE) else place("FILE", file)
    found = find(file)
    choices = backbones(conf, found)
    for line in describe(inspect(found, choices), choices):
        table.add_row(*line)
    Console(highlight=False, markup=False).print(table)
