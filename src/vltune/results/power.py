"""Which differences a table's columns can tell, and how many examples and seeds would tell a smaller one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vltune.errors import UserError
from vltune.results.tables import build, marks
from vltune.results.tables.model import Column, Table
from vltune.results.tables.presentations import NONE, Methods
from vltune.results.tables.rows import variant_of
from vltune.stats.power import Noise, detectable, least_seeds, seeds_needed, times_needed

SEEDS = (3, 5, 10, 20)
"""With which examples are planned."""


@dataclass(frozen=True)
class Told:
    """Of one column.  Differences are in its unit; `reason`: why nothing is known."""

    column: Column
    noise: Noise | None
    pair: float = math.nan
    """Detectable between two methods that were chosen beforehand."""
    table: float = math.nan
    """Detectable by the marks, which are corrected for the table's other rows."""
    units: tuple[int | None, ...] = ()
    """How many units tell the difference that was asked for by the marks, with each of `SEEDS`; None: no number does."""
    seeds: int | None = None
    """How many seeds tell it on these units."""
    least_seeds: int | None = None
    """How many tell it on any number of units."""
    reason: str = ""


def told(name: str, points: float, root: Path, methods: Methods = NONE) -> dict[str, list[Told]]:
    """{title: its columns} of a table, or of each of those that a name means.

    points: the difference that is planned for, in hundredths of a score.  Raises UserError as `build.build` does, and for a
    table that is not known."""
    tables = [build.build(each, root, methods) for each in build.expand(name)]
    return {table.title: list(_of_table(table, points / 100)) for table in tables}


def _of_table(table: Table, difference: float) -> Iterator[Told]:
    variants = [variant_of(table, row) for row in table.rows]
    for column in table.columns:
        if column.is_score and not column.ppt and not column.harmonic_of:
            try:
                noise = marks.noise(column, table.columns, variants, table.rows, table.folder)
            except UserError as error:
                yield Told(column, None, reason=str(error))
            else:
                yield _of_column(column, noise, difference)


def _of_column(column: Column, noise: Noise, difference: float) -> Told:
    others = noise.methods - 1
    times = [times_needed(noise, difference, seeds, others) for seeds in SEEDS]
    return Told(
        column,
        noise,
        pair=column.factor * detectable(noise, noise.seeds),
        table=column.factor * detectable(noise, noise.seeds, comparisons=others),
        units=tuple(None if each is None else math.ceil(each * noise.units) for each in times),
        seeds=seeds_needed(noise, difference, comparisons=others),
        least_seeds=least_seeds(noise, difference, others),
    )


def lines(found: Sequence[Told]) -> list[list[str]]:
    """A line of a table for each column, and first the headings."""
    shown = [["column", "units", "pair", "marks", *(f"x {seeds}" for seeds in SEEDS), "seeds", "least"]]
    for each in found:
        if each.noise is None:
            shown.append([each.column.name, *["—"] * (len(shown[0]) - 1)])
            continue
        digits = each.column.digits
        numbers = [
            "none" if number is None else f"{number:,}" for number in (*each.units, each.seeds, each.least_seeds)
        ]
        measured = f"{each.noise.units:,} x {each.noise.seeds}"
        shown.append([each.column.name, measured, f"{each.pair:.{digits}f}", f"{each.table:.{digits}f}", *numbers])
    return shown


def reasons(found: Sequence[Told]) -> list[str]:
    """Why nothing is known of a column, a line for each reason."""
    named: dict[str, list[str]] = {}
    for each in found:
        if each.reason:
            named.setdefault(each.reason, []).append(each.column.name)
    return [f"{', '.join(names)}: {reason}" for reason, names in named.items()]
