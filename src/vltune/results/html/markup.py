"""The parts of the page that need no script: what the numbers are, and the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from vltune.records import store
from vltune.results.render import text as render
from vltune.results.tables.cautions import CARE

if TYPE_CHECKING:
    from vltune.results.html.runs import TableRun
    from vltune.results.tables.build import Cell, Column, Table

_OPEN = 5  # items of a list that are shown at once; longer ones are folded


def text(value: object) -> str:
    """As HTML text or the value of an attribute."""
    return escape(str(value))


def switch(tables: Sequence[Table]) -> str:
    """One button a table, where there are several."""
    if len(tables) < 2:
        return ""
    buttons = (
        f'<button type="button" data-show="{number}" aria-pressed="{str(not number).lower()}">{text(table.name)}</button>'
        for number, table in enumerate(tables)
    )
    return f'<div class="switch" role="group" aria-label="Backbone">{"".join(buttons)}</div>'


def introduction(table: Table, runs: Sequence[TableRun]) -> str:
    """How many runs of what, what the numbers are, and what is missing or not to be compared."""
    facts = "".join(f"<div><dt>{text(name)}</dt><dd>{text(number)}</dd></div>" for name, number in _facts(runs))
    notes = [note for note in table.notes if not note.startswith(CARE)]
    care = [note for note in table.notes if note.startswith(CARE)]
    parts = [
        f'<div><h2>{text(table.title)}</h2><dl class="facts">{facts}</dl></div>',
        f'<div class="note"><h3>What these numbers are</h3>{_list([*notes, render.legend(table)])}</div>',
        f'<div class="warning">{_list(care)}</div>' if care else "",
        *(_folded(heading, items) for heading, items in render.below(table)),
    ]
    return _of_table(table, "\n".join(parts), "introduction")


def table(table: Table) -> str:
    """Sortable by the page's script; read without it, it has all columns."""
    extremes = {column.key: _extremes(table, column.key) for column in table.columns}
    rows = "\n".join(
        f'<tr data-row="{number}"><th scope="row"><span class="mark"></span>{text(row.label)}</th>'
        + "".join(_cell(column, row.cells[column.key], extremes[column.key]) for column in table.columns)
        + "</tr>"
        for number, row in enumerate(table.rows)
    )
    body = f"""<div class="scroll" tabindex="0" role="region" aria-label="{text(table.title)}, table">
<table class="scores"><caption>{text(table.title)}</caption>
<thead><tr><th scope="col" data-better="less">method</th>{"".join(map(_head, table.columns))}</tr></thead>
<tbody>{rows}</tbody></table></div>"""
    return _of_table(table, body, "table")


def _of_table(table: Table, body: str, kind: str) -> str:
    return f'<div class="of-table {kind}" data-table="{text(table.name)}">\n{body}\n</div>'


def _facts(runs: Sequence[TableRun]) -> Iterator[tuple[str, int]]:
    statuses = Counter(run.record["status"] for run in runs if run.trained)
    used = [run for run in runs if run.row is not None and run.trained]
    yield "runs finished", statuses.pop("finished", 0)
    yield from sorted(statuses.items())
    if costs := sum(not run.trained for run in runs):
        yield "costs measured alone", costs
    counted = {
        ("method", "methods"): {run.record["identity"]["method"] for run in used},
        ("task", "tasks"): {store.experiment(run.record) for run in used},
        ("seed", "seeds"): {run.seed for run in used},
        ("machine", "kinds of machine"): {run.machine for run in used},
    }
    for names, found in counted.items():
        if found:
            yield names[len(found) != 1], len(found)


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{text(item)}</li>' for item in items)}</ul>"


def _folded(heading: str, items: Sequence[str]) -> str:
    opened = " open" if len(items) <= _OPEN else ""
    return f'<details class="warning"{opened}><summary>{text(heading)} ({len(items)})</summary>{_list(items)}</details>'


def _head(column: Column) -> str:
    better = "more" if column.is_score and not column.less else "less"
    return (
        f'<th scope="col" title="{text(column.title)}" data-better="{better}"{_more(column)}>{text(column.name)}</th>'
    )


def _more(column: Column) -> str:
    return "" if column.essential else ' class="more"'


def _cell(column: Column, cell: Cell, extremes: tuple[float, float] | None) -> str:
    """The numbers, and where they lie in their column."""
    value = cell.published if cell.mean is None else cell.mean
    ours = render.ours(column, cell).removesuffix(f" {cell.mark}")
    mean, sign, spread = map(text, ours.partition(" ± "))
    parts = [f"<b>{mean}</b>" if cell.best else mean, f'<span class="spread">{sign}{spread}</span>' if sign else ""]
    if column.is_score and cell.mean is not None:
        parts.append(f'<span class="sign">{text(cell.mark)}</span>')  # of one width, so that numbers stay in line
    if cell.published is not None:
        parts.append(f"<small>published {text(render.number(column, cell.published))}</small>")
    if cell.difference is not None:
        verdict = render.verdict(cell)
        parts.append(f"<small>difference {text(render.difference(column, cell))} {text(verdict)}</small>")
    if cell.mean is not None and extremes:
        parts.append(_place(column, cell, extremes))
    sort = "" if value is None else f' data-value="{value!r}"'
    said = "; ".join(_tests(column, cell))
    told = f' title="{text(said)}"' if said else ""
    kind = " ".join(filter(None, ["more" * (not column.essential), "reason" * bool(cell.reason)]))
    return f"<td{sort}{told}{f' class={kind!r}' if kind else ''}>{''.join(parts)}</td>"


def _end(column: Column) -> str:
    return "lowest" if column.less else "highest"


def _tests(column: Column, cell: Cell) -> Iterator[str]:
    """What stands behind the marks of a cell."""
    if cell.interval:
        low, high = (render.number(column, end) for end in cell.interval)
        yield f"95 % interval of the mean {low} to {high}"
    if cell.best:
        yield f"{_end(column)} of the column"
    for what, p in (("examples", cell.p_examples), ("seeds too", cell.p_seeds)):
        if p is not None:
            yield f"against the {_end(column)}, over {what}: p = {p:.2g}"


def _extremes(table: Table, key: str) -> tuple[float, float] | None:
    """What a column's marks lie between, deviations included and controls left out; None where all are the same."""
    cells = [
        row.cells[key] for row in table.rows if row.cells[key].mean is not None and not row.presentation.is_control
    ]
    ends = [cell.mean + sign * (cell.std or 0.0) for cell in cells for sign in (-1, 1)]
    return (min(ends), max(ends)) if ends and min(ends) < max(ends) else None


def _place(column: Column, cell: Cell, extremes: tuple[float, float]) -> str:
    """A score as a point with its deviation on the column's range; a cost as a bar from zero, leftward where it saves."""
    low, high = extremes if column.is_score else (min(0.0, extremes[0]), max(0.0, extremes[1]))
    at = 100 * (cell.mean - low) / (high - low)
    if not 0 <= at <= 100:  # a control's
        return ""
    if not column.is_score:
        zero = 100 * (0.0 - low) / (high - low)
        start = f"{min(zero, at):.1f}%" if low < 0 else "0"
        return f'<span class="range"><b style="left:{start};width:{abs(at - zero):.1f}%"></b></span>'
    half = 100 * (cell.std or 0.0) / (high - low)
    spread = f'<b style="left:{at - half:.1f}%;width:{2 * half:.1f}%"></b>'
    return f'<span class="range">{spread}<i style="left:{at:.1f}%"></i></span>'
