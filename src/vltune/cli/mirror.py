"""Records in Weights & Biases: `vltune wandb-sync`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltune.errors import UserError


def wandb_sync(
    results_dir: Annotated[Path, typer.Option(help="Folder of records/.")] = Path("results"),
    project: Annotated[str | None, typer.Option(help="W&B project.", show_default="WANDB_PROJECT, or vltune")] = None,
    entity: Annotated[str | None, typer.Option(help="User or team.", show_default="your default one")] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="online: send; offline: write W&B's files into runs/.", show_default="WANDB_MODE, or online"),
    ] = None,
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

    from vltune.assemble.data import examples_of
    from vltune.loggers.sync import sync
    from vltune.loggers.wandb import WandbLogger
    from vltune.records import store
    from vltune.records.record import run_folder

    if mode not in (None, "online", "offline"):
        raise UserError(f"--mode {mode}: use online or offline")
    logger, states = WandbLogger(project, mode, entity, examples=examples, otherwise="online"), Counter()
    logger.ready()
    for told in filter(None, (f"W&B: {logger.mode} ({logger.why})" if logger.why else "", logger.unheeded)):
        typer.echo(told, err=True)

    def tell(name: str, state: str, why: object = None) -> None:
        states[state] += 1
        if state != "not tried":
            typer.echo(f"{state}: {name}{f': {why}' if why else ''}")

    runs = []
    for record in store.load(results_dir, lambda error: tell("broken record", "failed", error)):
        place = Path(record["path"])
        if record["status"] == "finished" and not store.is_cost(record) and not record["trouble"]:
            runs.append((record, results_dir / place, run_folder(results_dir, place)))
    for file, state, why in sync(runs, logger, examples_of, dry_run):
        tell(str(file.relative_to(results_dir)), state, why)
    if states["not tried"]:
        typer.echo(f"W&B cannot be reached: {states['not tried']} records are not tried")
    table = Table("records", "number")
    for state, number in sorted(states.items()):
        table.add_row(state, str(number))
    Console(highlight=False).print(table)
    if states["failed"] or states["not tried"]:
        raise typer.Exit(1)
