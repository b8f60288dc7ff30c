"""What the tables say and what they do not: every pair of methods, told apart or not, counted and written down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vltune.results.render import text as render
from vltune.results.tables import build, marks
from vltune.results.tables.cautions import CARE
from vltune.results.tables.model import Column, Table, TableRow
from vltune.results.tables.presentations import NONE, Methods
from vltune.results.tables.rows import variant_of
from vltune.stats.significance import LEVEL

HEAD = f"""\
# What the comparison says

Written by `vltune findings` from the records alone; nothing in here was typed. **All of it is about a toy world and
backbones of less than 0.6 million parameters: a ranking here says nothing about photographs.**

Two methods are *told apart* where the test over examples and the test over seeds both say so at {LEVEL:.0%}, corrected
for the number of pairs of the column (Holm, [statistics.md](statistics.md)). What is not told apart may be equally good,
or may differ by less than three seeds and a few thousand examples can show."""
_FEW = 3
"""Methods above which a list of them says how many, too."""


def written(root: Path, methods: Methods = NONE) -> str:
    """Markdown of all tables whose definition has `findings`, from the records under `root`.

    methods: see `build.build`.  Raises UserError as that does."""
    return "\n".join(_lines(root, methods)) + "\n"


def _lines(root: Path, methods: Methods) -> Iterator[str]:
    yield HEAD
    for group in sorted(filter(_finds, build.groups().values()), key=_place):
        asked = group["findings"]
        yield ""
        yield f"## {asked['title']}"
        yield ""
        yield asked["what"]
        for name in group["tables"]:
            yield from _of_table(build.build(name, root, methods), asked["columns"])


def _finds(group: dict) -> bool:
    return "findings" in group


def _place(group: dict) -> int:
    return group["findings"]["place"]


def _of_table(table: Table, keys: Sequence[str]) -> Iterator[str]:
    yield ""
    yield f"### {table.title}"
    if care := [note for note in table.notes if note.startswith(CARE)]:
        yield ""
        yield from (f"- {note}" for note in care)
    for key in keys:
        yield ""
        yield from _of_column(table, table.column(key))


def _of_column(table: Table, column: Column) -> Iterator[str]:
    variants = [variant_of(table, row) for row in table.rows]
    order, apart, untested = marks.told_apart(column, variants, table.rows, table.folder)
    if len(order) < 2:
        yield f"**{column.title}**: no two methods have been run."
        return
    told = sum(apart.values())
    best = order[0]
    tied = [table.rows[other].label for other in order[1:] if not apart.get((best, other), True)]
    lacking = f" {len(untested)} could not be tested ({next(iter(untested.values()))})." if untested else ""
    yield (
        f"**{column.title}**, {len(order)} methods: of {len(apart)} pairs **{told} are told apart, {len(apart) - told} are "
        f"not**. The {'lowest' if column.less else 'highest'} is {table.rows[best].label}; not told from it: {_list(tied)}."
        f"{lacking}"
    )
    yield ""
    costs = [each for each in table.columns if each.essential and each.is_counted]
    heads = ["method", "family", column.title, *(each.title for each in costs), "told above", "told below"]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * 2}{'---:|' * (len(heads) - 2)}"
    for place in order:
        row = table.rows[place]
        above = sum(of for (better, _), of in apart.items() if better == place)
        below = sum(of for (_, worse), of in apart.items() if worse == place)
        values = (_without_mark(each, row) for each in (column, *costs))
        family = (row.presentation.family or "").replace("_", " ")
        yield f"| {' | '.join([render.escaped(row.label), family, *values, str(above), str(below)])} |"


def _without_mark(column: Column, row: TableRow) -> str:
    """The cell's number, without its place against the column's best, of which the counts here say more."""
    cell = row.cells[column.key]
    return render.ours(column, cell).removesuffix(f" {cell.mark}")


def _list(names: Sequence[str]) -> str:
    told = ", ".join(names) or "none"
    return f"{told} ({len(names)})" if len(names) > _FEW else told
