"""Pictures that runs made, side by side: each with what it was compared with, and the same of every method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.records import predictions, store
from vltune.records.predictions import FILES, PREDICTIONS

if TYPE_CHECKING:
    from vltune.results.html.pictures import Pictures
    from vltune.results.html.runs import TableRun
    from vltune.results.tables.build import Table

MOST = 24
"""Lines of an experiment, spread evenly over those that there are."""


def of(table: Table, runs: Sequence[TableRun], pictures: Pictures) -> list[dict[str, Any]]:
    """For each experiment of runs that made pictures: lines, each of a prediction, with what it is beside and what every
    run made, at the lowest seed of its row.  A picture that is not on this machine is left out."""
    found: dict[str, dict[int, tuple[TableRun, dict[tuple[str, int], tuple[str, str]]]]] = {}
    for run in runs:
        if run.row is None:
            continue
        if made := dict(_made((table.folder / run.record["path"]).with_suffix(PREDICTIONS))):
            of_rows = found.setdefault(store.experiment(run.record), {})
            if run.row not in of_rows or run.seed < of_rows[run.row][0].seed:
                of_rows[run.row] = run, made
    return [_shown(name, of_rows, table.folder, pictures) for name, of_rows in found.items()]


def _made(file: Path) -> Iterator[tuple[tuple[str, int], tuple[str, str]]]:
    """(prediction, id) of each picture, and the file's name with that of what it is beside, empty for none."""
    seen = set()
    for row in predictions.pictures(file):
        key = row["prediction"], row["id"]
        if key not in seen:
            seen.add(key)
            yield key, (row["picture"] or "", row["beside"] or "")


def _shown(name: str, of_rows: dict, root: Path, pictures: Pictures) -> dict[str, Any]:
    lines = list(dict.fromkeys(key for _, made in of_rows.values() for key in made))
    kept = [
        lines[round(i * (len(lines) - 1) / max(1, min(MOST, len(lines)) - 1))] for i in range(min(MOST, len(lines)))
    ]

    def place(run: TableRun, path: str) -> int | None:
        file = (root / run.record["path"]).with_suffix(FILES) / path
        return pictures.add(file.read_bytes()) if path and file.is_file() else None

    found = []
    for key in kept:
        others = (place(run, made[key][1]) for run, made in of_rows.values() if key in made)
        beside = next((picture for picture in others if picture is not None), None)
        shown = [[row, place(run, made[key][0])] for row, (run, made) in sorted(of_rows.items()) if key in made]
        found.append({"text": key[0], "beside": beside, "pictures": shown})
    return {"experiment": name, "rows": sorted(of_rows), "lines": found}
