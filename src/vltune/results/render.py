"""A table as text: Markdown, LaTeX and CSV files, and what a terminal shows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vltune.results.tables import METHODS, TYPED, Cell, Column, Table

if TYPE_CHECKING:
    from rich.console import Group

NOTHING = "—"
_MARKDOWN = str.maketrans({"|": r"\|"})
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", NOTHING: "---"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", TYPED: r"$^\dagger$"}
)


def markdown(table: Table) -> str:
    """A GitHub-flavoured table under its title, with notes and unfinished runs below."""
    header = ["method", *(column.title for column in table.columns)]
    lines = [f"| {' | '.join(text.translate(_MARKDOWN) for text in texts)} |" for texts in (header, *_body(table))]
    lines.insert(1, f"|---|{'---:|' * len(table.columns)}")
    parts = [f"# {table.title}", "\n".join(lines), "\n".join(f"- {note}" for note in (_legend(table), *table.notes))]
    for heading, items in _below(table):
        quoted = (item.replace("`", "'") for item in items)
        parts += [f"{heading}:", "\n".join(f"- `{item}`" for item in quoted)]
    return "\n\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """The essential columns over the whole width of a page; needs the packages booktabs and graphicx."""
    columns = _essential(table)
    header = ["method", *(column.short or column.title for column in columns)]
    head, *rows = (rf"{' & '.join(map(_tex, texts))} \\" for texts in (header, *_body(table, columns)))
    below = [f"{heading}: {'; '.join(items)}." for heading, items in _below(table)]
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table*}",
            r"\centering",
            rf"\caption{{{_tex(table.title)}}}",
            rf"\label{{tab:{table.name}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            "",
            rf"\footnotesize {_tex(' '.join([_legend(table), *table.notes, *below]))}",
            r"\end{table*}",
            "",
        ]
    )


def comma_separated(table: Table) -> str:
    """One line per row: unrounded numbers in the columns' units, an empty field where there is none.

    A column in which a person typed has one field more, of how many seeds."""
    fields = [
        (column.key, field)
        for column in table.columns
        for field in ("mean", "std", "n", "published", "difference", "typed")
        if field != "typed" or any(row.cells[column.key].typed for row in table.rows)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "method", "label", "hash", *(f"{key}_{field}" for key, field in fields)])
    for row in table.rows:
        numbers = [getattr(row.cells[key], field) for key, field in fields]
        writer.writerow([table.name, row.method, row.label, "+".join(row.hashes), *numbers])
    return text.getvalue()


TEXT: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex, "csv": comma_separated}


def terminal(table: Table) -> Group:
    """The essential columns; published, ours and difference below each other, so that 80 to 120 columns hold them."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    columns = _essential(table)
    compares = _compares(table)
    grid = Grid(title=table.title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    # A fixed width: rich would take the room for a long label from the numbers.
    room = max(map(len, METHODS)) if compares else 30
    grid.add_column("method", overflow="fold", width=min(room, max(len(row.label) for row in table.rows)))
    if compares:
        grid.add_column("", no_wrap=True)
    for column in columns:
        grid.add_column(Text(column.short or column.title), justify="right", overflow="fold")
    for row in table.rows:
        cells = [(column, row.cells[column.key]) for column in columns]
        lines = {"ours": [_ours(*pair) for pair in cells]}
        if any(cell.published is not None for _, cell in cells):
            lines = {"published": [_number(column, cell.published) for column, cell in cells]} | lines
        if any(cell.difference is not None for _, cell in cells):
            lines["difference"] = [_difference(*pair) for pair in cells]
        for index, (name, texts) in enumerate(lines.items()):
            label = row.label if index == 0 else ""
            style = "bold" if compares and name == "ours" else ""
            grid.add_row(Text(label), *([name] if compares else []), *texts, style=style)
        if compares:
            grid.add_section()
    texts = [_legend(table), *table.notes]
    for heading, items in _below(table):
        texts += ["", f"{heading}:", *items]
    return Group(grid, *map(Text, texts))


def _essential(table: Table) -> list[Column]:
    return [column for column in table.columns if column.essential]


def _body(table: Table, columns: Sequence[Column] | None = None) -> list[list[str]]:
    """The texts of each row: its label, then one cell for each column."""
    columns = table.columns if columns is None else columns
    return [[row.label, *(_cell(column, row.cells[column.key]) for column in columns)] for row in table.rows]


def _tex(text: str) -> str:
    """LaTeX for `text`: special characters escaped, a number's sign a minus."""
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", text.translate(_LATEX))


def _legend(table: Table) -> str:
    cells = "Cells: published / ours / difference where a number was published. " if _compares(table) else ""
    return f"{cells}Scores: mean ± standard deviation over seeds (how many); costs: mean; {NOTHING}: not run."


def _compares(table: Table) -> bool:
    return any(column.published for column in table.columns)


def _below(table: Table) -> list[tuple[str, tuple[str, ...]]]:
    """What gave no number, and is named for that: (heading, items)."""
    parts = [("Runs that did not finish", table.unfinished), ("Files that are no valid record", table.broken)]
    return [(heading, items) for heading, items in parts if items]


def _cell(column: Column, cell: Cell) -> str:
    if not column.published:
        return _ours(column, cell)
    parts = [_number(column, cell.published), _ours(column, cell), _difference(column, cell)]
    return NOTHING if set(parts) == {NOTHING} else " / ".join(parts)


def _difference(column: Column, cell: Cell) -> str:
    """In the column's unit, or in percent of the published number where the column says so and that is not zero."""
    if cell.difference is None or not (column.relative and cell.published):
        return _number(column, cell.difference, "+")
    return f"{_rounded(100 * cell.difference / cell.published, 1, '+')} %"


def _ours(column: Column, cell: Cell) -> str:
    mean = _number(column, cell.mean)
    if cell.mean is None or not column.is_score:
        return mean
    mark = TYPED if cell.typed else ""
    return f"{mean}{mark} ({cell.n})" if cell.std is None else f"{mean}{mark} ± {_number(column, cell.std)} ({cell.n})"


def _number(column: Column, value: float | None, sign: str = "") -> str:
    if value is None:
        return NOTHING
    return _rounded(value, column.digits, sign)


def _rounded(value: float, digits: int, sign: str = "") -> str:
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no "-0.00"
