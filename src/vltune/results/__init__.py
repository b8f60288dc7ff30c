"""Records of runs, and the tables and figures that are made of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.errors import UserError

if TYPE_CHECKING:
    from vltune.results.tables import Table

FORMATS = ("md", "tex", "csv", "png", "svg")


def report(name: str, root: Path, out: Path | None = None, formats: Sequence[str] = FORMATS) -> list[Table]:
    """Builds the tables that `name` means (a table, or a file of several) from the records under `root`; writes them.

    Writes `out/tables/<table>.{md,tex,csv}` and `out/figures/<table>.{png,svg}`, `out` being `root` unless given.
    Raises UserError for an unknown table or format and for a folder that cannot be written.
    """
    from vltune.results import figures, render, tables
    from vltune.results.record import save

    if unknown := [format for format in formats if format not in FORMATS]:
        raise UserError(f"format {unknown[0]!r} is not known: use any of {', '.join(FORMATS)}")
    built = [tables.build(table, root) for table in tables.expand(name)]
    out = Path(root if out is None else out)
    for table, format in product(built, formats):
        if format in render.TEXT:
            save(out / "tables" / f"{table.name}.{format}", render.TEXT[format](table).encode())
        else:
            save(out / "figures" / f"{table.name}.{format}", figures.draw(table, format))
    return built
