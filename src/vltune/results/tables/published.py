"""The published numbers: `root/paper/TABLE.json`, with their source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vltune.errors import UserError
from vltune.records.files import is_there
from vltune.records.record import read_json
from vltune.results.tables.model import Column


def of(name: str, columns: tuple[Column, ...], root: Path) -> tuple[dict[str, dict[str, float]], list[str]]:
    """{method: {name: number}} and a note on where they come from; both empty for a table without published columns.

    Raises UserError that names the file and the field where it holds something else."""
    if not any(column.published for column in columns):
        return {}, []
    file = Path(root) / "paper" / f"{name}.json"
    if not is_there(file):
        return {}, [f"Published numbers are left out: there is no paper/{file.name}."]
    paper = read_json(file)
    check(file, paper)
    return paper["rows"], [f"Published numbers: {paper['source']}."]


def check(file: Path, paper: Any) -> None:
    """UserError that names the field which is none."""
    rows, source = (paper.get(key) if isinstance(paper, dict) else None for key in ("rows", "source"))
    if not isinstance(source, str) or not isinstance(rows, dict):
        raise UserError(f"{file}: must hold a text `source` and `rows`, the numbers of each method: correct it")
    for method, numbers in rows.items():
        if not isinstance(numbers, dict):
            raise UserError(f"{file}: field 'rows.{method}' is {numbers!r}: write its numbers by name")
        for key, number in numbers.items():
            if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
                raise UserError(f"{file}: field 'rows.{method}.{key}' is {number!r}: write a number, or null")
