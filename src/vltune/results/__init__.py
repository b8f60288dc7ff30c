"""Records of runs, and the tables and figures that are made of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.errors import UserError

if TYPE_CHECKING:
    from vltune.results.html.disagreement import Look
    from vltune.results.tables.build import Table
    from vltune.results.tables.presentations import Methods

FORMATS = ("md", "tex", "csv", "png", "svg")
"""What is written unless something else is asked for."""
PAGE = "html"


def report(
    name: str,
    root: Path,
    out: Path | None = None,
    formats: Sequence[str] = FORMATS,
    look: Look | None = None,
    methods: Methods | None = None,
) -> list[Table]:
    """Builds the tables that `name` means (a table, or a file of several) from the records under `root`; writes them.

    Writes `out/tables/<table>.{md,tex,csv}`, `out/figures/<table>.{png,svg}` and `out/html/<name>.html`, one page of all of
    the tables, `out` being `root` unless given.  look: opens the examples that the page shows
    (`vltune.assemble.data.examples_of`).  methods: which there are, with their presentation (`vltune.catalogue.methods`).
    Raises UserError for an unknown table or format and for a folder that cannot be written.
    """
    from vltune.records.record import save
    from vltune.results.render import figures, text
    from vltune.results.tables import build

    if unknown := [format for format in formats if format not in (*FORMATS, PAGE)]:
        raise UserError(f"format {unknown[0]!r} is not known: use any of {', '.join((*FORMATS, PAGE))}")
    built = [build.build(table, root, methods or {}) for table in build.expand(name)]
    out = Path(root if out is None else out)
    if PAGE in formats:
        from vltune.results.html import page

        save(page_file(name, out), page(name, built, look))
    for table, format in product(built, [format for format in formats if format != PAGE]):
        if format in text.TEXT:
            save(out / "tables" / f"{table.name}.{format}", text.TEXT[format](table).encode())
        else:
            save(out / "figures" / f"{table.name}.{format}", figures.draw(table, format))
    return built


def page_file(name: str, out: Path) -> Path:
    return out / "html" / f"{name}.html"
