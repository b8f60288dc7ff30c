"""What a definition says of its table, with numbers from the table's own cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from vltune.results.tables.model import TYPED, Cell, Column

Cells = dict[str, dict[str, Cell]]
"""{method, or a name of `aside`: {column: cell}}"""


def written(notes: Iterable[str | dict], cells: Cells, columns: tuple[Column, ...]) -> Iterator[str]:
    """Plain notes, and those that speak of the table's own cells, where every number that they name is there.

    `text` names cells as `{method[column].mean}`; `saving` gives it more names, each for the percent by which the first
    number is below the second; with `differs` the note is for the case that this cell is not the published one.
    """
    digits = {column.key: column.digits for column in columns}
    for note in notes:
        if isinstance(note, str):
            yield note
            continue
        try:
            if "differs" in note:
                method, column = note["differs"]
                if not round(cells[method][column].difference or 0.0, digits[column]):
                    continue
            savings = {
                name: _saving(*(_number(cells, path) for path in pair)) for name, pair in note.get("saving", {}).items()
            }
            text = note["text"].format(**cells, **savings)
        except (
            TypeError,
            KeyError,
        ):  # what was not measured is None, which has no decimals; what is no row has no cells
            continue
        yield text


def typed(records: list[dict]) -> Iterator[str]:
    """Whose numbers the marked ones are."""
    scores = [(Path(record["path"]).stem, score) for record in records for score in record["typed"].values()]
    if scores:
        said = "; ".join(f"{run} {score.value:.2f} ({score.source}; by {score.by})" for run, score in scores)
        yield f"{TYPED} typed by a person from the official server, not computed here: {said}."


def _number(cells: Cells, path: str) -> float | None:
    """The number that `method.column.field` names."""
    method, column, field = path.split(".")
    return getattr(cells[method][column], field)


def _saving(less: float | None, more: float | None) -> float | None:
    return 100 * (1 - less / more) if more and less is not None else None
