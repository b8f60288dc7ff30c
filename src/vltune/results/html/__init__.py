"""One self-contained page of tables: it needs no network, and runs no script but its own."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from vltune.results.html import curves, disagreement, gallery, markup, runs
from vltune.results.html.pictures import Pictures
from vltune.results.render import text as render

if TYPE_CHECKING:
    from vltune.results.html.disagreement import Look
    from vltune.results.tables.build import Table
    from vltune.results.tables.model import Cell

PICTURE_BYTES = 3_500_000
"""Of all pictures on a page, at most, as they are embedded; with it a page of a few hundred runs stays below 5 MB."""

_HERE = Path(__file__).parent
_SCRIPTS = (
    "dom",
    "families",
    "axis",
    "tooltip",
    "sorting",
    "scatter",
    "curves",
    "disagreement",
    "gallery",
    "runs",
    "page",
)


def page(name: str, tables: Sequence[Table], look: Look | None = None) -> bytes:
    """HTML of the tables that `name` means and of the runs that they are made of.

    look: opens the examples of a run's split, so that predictions are shown with what they are about.  The same records,
    and the same data where `look` is given, make the same bytes."""
    of_tables = [runs.of(table) for table in tables]
    pictures = Pictures(PICTURE_BYTES)
    galleries = [gallery.of(table, of, pictures) for table, of in zip(tables, of_tables, strict=True)]
    compared = disagreement.compare(tables, of_tables, look, pictures)
    data = {
        "tables": [
            _described(table) | {"curves": curves.of(of), "gallery": made, "disagreement": parts}
            for table, of, made, parts in zip(tables, of_tables, galleries, compared, strict=True)
        ],
        "runs": runs.described(of_tables),
        "pictures": pictures.embedded,
        "pictures_left_out": pictures.left_out,
    }
    script = "\n".join((_HERE / f"{part}.js").read_text(encoding="utf-8") for part in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}}})();\n'
    filled = Template((_HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=markup.text(f"vltune report {name}"),
        name=markup.text(name),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        switch=markup.switch(tables),
        introductions="\n".join(markup.introduction(*pair) for pair in zip(tables, of_tables, strict=True)),
        tables="\n".join(map(markup.table, tables)),
        data=embedded(data),
        script=script,
    )
    return filled.encode()


def embedded(data: Any) -> str:
    """JSON that ends no script element, whatever is in it."""
    text = json.dumps(_short(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _described(table: Table) -> dict[str, Any]:
    """Of a table, what its charts show."""
    return {
        "name": table.name,
        "title": table.title,
        "figure": table.figure,
        "columns": [
            {"key": column.key, "title": column.title, "digits": column.digits, "score": column.is_score}
            | ({"less": True} if column.less else {})
            for column in table.columns
        ],
        "rows": [
            {
                "label": row.label,
                "colour": row.presentation.colour,
                "shape": row.shape,
                "family": row.presentation.family,
                "families": list(row.presentation.families),
                "control": row.presentation.is_control,
                "cells": {column.key: _numbers(row.cells[column.key], column.digits) for column in table.columns},
            }
            for row in table.rows
        ],
    }


class Printed(float):
    """A number to as many decimals as the table shows, which is not rounded a second time."""


def _numbers(cell: Cell, digits: int) -> dict[str, float]:
    kept = {key: value for key, value in vars(cell).items() if isinstance(value, int | float) and key != "rounding"}
    shown = {key: Printed(round(kept[key], digits)) for key in ("mean", "std", "published") if key in kept}
    return kept | shown


def _short(data: Any) -> Any:
    """Numbers with six digits: more than a reader can see, and less than half the bytes."""
    if isinstance(data, float):
        short = float(data) if isinstance(data, Printed) else render.short(data)
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    if isinstance(data, dict):
        return {key: _short(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_short(value) for value in data]
    return data
