"""Finished records to W&B, one after the other: what `vltune wandb-sync` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.loggers.wandb import WandbLogger

if TYPE_CHECKING:
    from vltune.data.examples import Examples

PATIENCE = 3
"""So many runs in a row that could not be opened: then W&B is at fault, and the others would wait for it in vain."""


def sync(
    runs: Iterable[tuple[dict, Path, Path]],
    logger: WandbLogger,
    look: Callable[[dict, str], Examples],
    dry_run: bool = False,
) -> Iterator[tuple[Path, str, str | None]]:
    """Yields each record's file, what became of it (`sent`, `unchanged`, `failed`, `not tried`, `would be sent`), and why.

    runs: finished records, their files, and the folders of their runs.  look: opens the examples of a
    configuration's split."""
    logger.warns, unreached = False, 0
    for record, file, folder in runs:
        if dry_run:
            yield file, "unchanged" if logger.has(file, folder) else "would be sent", None
            continue
        if unreached == PATIENCE:
            yield file, "not tried", None
            continue
        state = logger.mirror(record, file, folder, partial(look, record["config"]))
        unreached = unreached + 1 if state == "not reached" else 0
        yield file, "failed" if state == "not reached" else state, logger.trouble
