"""A table as text: Markdown, LaTeX and CSV files, and what a terminal shows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vltune.results.tables.build import ALIKE, MIXED, SAME, TYPED, UNTESTED, Cell, Column, Table

if TYPE_CHECKING:
    from rich.console import Group

NOTHING = "—"
WITHIN, OUTSIDE = "within", "outside"
"""Whether the published number lies in our interval."""
_TESTED = ("low", "high", "best", "mark", "p_examples", "p_seeds", "agrees", "reason")
_MARKDOWN = str.maketrans({"|": r"\|"})
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", NOTHING: "---"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {TYPED: r"$^\dagger$", MIXED: r"$^\ddagger$", ALIKE: r"$\approx$"}
)


def markdown(table: Table) -> str:
    """A GitHub-flavoured table under its title, with notes and unfinished runs below."""
    header = [escaped(text) for text in ("method", *(column.title for column in table.columns))]
    body = _body(table, table.columns, escaped, "**{}**".format)
    lines = [f"| {' | '.join(texts)} |" for texts in (header, *body)]
    lines.insert(1, f"|---|{'---:|' * len(table.columns)}")
    parts = [f"# {table.title}", "\n".join(lines), "\n".join(f"- {note}" for note in (legend(table), *table.notes))]
    for heading, items in below(table):
        quoted = (item.replace("`", "'") for item in items)
        parts += [f"{heading}:", "\n".join(f"- `{item}`" for item in quoted)]
    return "\n\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """The essential columns over the whole width of a page; needs the packages booktabs and graphicx."""
    columns = _essential(table)
    header = [_tex(text) for text in ("method", *(column.name for column in columns))]
    body = _body(table, columns, _tex, r"\textbf{{{}}}".format)
    head, *rows = (rf"{' & '.join(texts)} \\" for texts in (header, *body))
    named = [f"{heading}: {'; '.join(items)}." for heading, items in below(table)]
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
            rf"\footnotesize {_tex(' '.join([legend(table), *table.notes, *named]))}",
            r"\end{table*}",
            "",
        ]
    )


def comma_separated(table: Table) -> str:
    """One line per row: counts whole, other numbers with six digits, in the columns' units; an empty field where there is
    none.  More digits would tell processors apart: they round a mean or a p otherwise.

    A column in which a person typed has one field more, of how many seeds; a score has its 95 % interval and what the tests
    against the column's best gave."""
    fields = []
    for column in table.columns:
        fields += [(column.key, field) for field in ("mean", "std", "n", "published", "difference")]
        if any(row.cells[column.key].typed for row in table.rows):
            fields.append((column.key, "typed"))
        if column.is_score and not column.ppt:
            fields += [(column.key, field) for field in _TESTED]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "method", "label", "hash", "trials", *(f"{key}_{field}" for key, field in fields)])
    for row in table.rows:
        numbers = [_field(table.column(key), row.cells[key], field) for key, field in fields]
        writer.writerow([table.name, row.method, row.label, "+".join(row.hashes), row.trials, *numbers])
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
    room = max((len(row.presentation.label) for row in table.rows), default=0) if compares else 30
    grid.add_column("method", overflow="fold", width=min(room, max((len(row.label) for row in table.rows), default=0)))
    if compares:
        grid.add_column("", no_wrap=True)
    for column in columns:
        grid.add_column(Text(column.name), justify="right", overflow="fold")
    for row in table.rows:
        cells = [(column, row.cells[column.key]) for column in columns]
        own = [Text(ours(*pair), style="bold underline" if pair[1].best else "") for pair in cells]
        lines: dict[str, list[Text | str]] = {"ours": own}
        if any(cell.published is not None for _, cell in cells):
            lines = {"published": [number(column, cell.published) for column, cell in cells]} | lines
        if any(cell.difference is not None for _, cell in cells):
            lines["difference"] = [difference(*pair) for pair in cells]
        if any(cell.agrees is not None for _, cell in cells):
            lines["verdict"] = [verdict(cell) or NOTHING for _, cell in cells]
        for index, (name, texts) in enumerate(lines.items()):
            label = row.label if index == 0 else ""
            style = "bold" if compares and name == "ours" else ""
            grid.add_row(Text(label), *([name] if compares else []), *texts, style=style)
        if compares:
            grid.add_section()
    texts = [legend(table), *table.notes]
    for heading, items in below(table):
        texts += ["", f"{heading}:", *items]
    return Group(grid, *map(Text, texts))


def _essential(table: Table) -> list[Column]:
    return [column for column in table.columns if column.essential]


def _body(
    table: Table, columns: Sequence[Column], escaped: Callable[[str], str], strong: Callable[[str], str]
) -> list[list[str]]:
    """The texts of each row: its label, then one cell for each column."""
    return [
        [escaped(row.label), *(_cell(column, row.cells[column.key], escaped, strong) for column in columns)]
        for row in table.rows
    ]


def escaped(text: str) -> str:
    return text.translate(_MARKDOWN)


def _tex(text: str) -> str:
    """LaTeX for `text`: special characters escaped, a number's sign a minus."""
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", text.translate(_LATEX))


def legend(table: Table) -> str:
    cells = [cell for row in table.rows for cell in row.cells.values()]
    marks = {cell.mark for cell in cells}
    said = ["Cells: published / ours / difference where a number was published."] if _compares(table) else []
    said.append(
        "Scores: mean ± standard deviation over seeds (how many runs); costs: mean;"
        f" {NOTHING}: not run or not measured."
    )
    if any(cell.agrees is not None for cell in cells):
        said.append(
            f"{WITHIN}, {OUTSIDE}: whether the published number lies in the 95 % interval of our mean over seeds"
            " (Student's t); it is of one run or a few, whose own spread is not known here."
        )
    if any(cell.best for cell in cells):
        said.append(f"Bold: the {'best' if any(column.less for column in table.columns) else 'highest'} of a column.")
    if SAME in marks:
        said.append(
            f"{SAME}: not distinguishable from it by the examples (McNemar for accuracies, paired bootstrap for others)."
        )
    if ALIKE in marks:
        said.append(
            f"{ALIKE}: told from it by these examples, but not once the spread over seeds counts, or one seed tells none."
        )
    if UNTESTED in marks:
        said.append(f"{UNTESTED}: not tested.")
    if any(cell.machines > 1 for cell in cells):
        said.append(f"{MIXED}: its runs were made on several machines, which round otherwise or take other times.")
    if any(cell.best for cell in cells):
        said.append(
            "Tests at 5 %, corrected for the column's comparisons (Holm); controls take no part (docs/statistics.md)."
        )
    return " ".join(said)


def _compares(table: Table) -> bool:
    return any(column.published for column in table.columns)


def below(table: Table) -> list[tuple[str, tuple[str, ...]]]:
    """What gave no number, and is named for that: (heading, items)."""
    parts = [
        ("Runs that did not finish", table.unfinished),
        ("Files that cannot be used", table.broken),
        (
            "Missing runs, and what makes them (with results_dir=FOLDER, where the others are not in results)",
            table.missing,
        ),
    ]
    return [(heading, items) for heading, items in parts if items]


def _cell(column: Column, cell: Cell, escaped: Callable[[str], str], strong: Callable[[str], str]) -> str:
    own = escaped(ours(column, cell))
    own = strong(own) if cell.best else own
    if not column.published:
        return own
    published, less = number(column, cell.published), difference(column, cell)
    if published == own == less == NOTHING:
        return NOTHING
    return " / ".join([escaped(published), own, escaped(f"{less} {verdict(cell)}".rstrip())])


def difference(column: Column, cell: Cell) -> str:
    """In the column's unit, or in percent of the published number where the column says so and that is not zero."""
    if cell.difference is None or not (column.relative and cell.published):
        return number(column, cell.difference, "+")
    return f"{rounded(100 * cell.difference / cell.published, 1, '+')} %"


def verdict(cell: Cell) -> str:
    if cell.agrees is None:
        return ""
    return WITHIN if cell.agrees else OUTSIDE


def ours(column: Column, cell: Cell) -> str:
    mean = number(column, cell.mean)
    if cell.mean is None or not column.is_score:
        return cell.reason or f"{mean}{signs(cell)}"
    spread = "" if cell.std is None else f" ± {number(column, cell.std)}"
    return f"{mean}{signs(cell)}{spread} ({cell.n}){cell.mark and f' {cell.mark}'}"


def signs(cell: Cell) -> str:
    """What a reader has to know of where it comes from."""
    return f"{TYPED if cell.typed else ''}{MIXED if cell.machines > 1 else ''}"


def _field(column: Column, cell: Cell, name: str) -> float | str | bool | None:
    """Of a CSV file."""
    if name in ("low", "high"):
        return cell.interval and short(cell.interval[name == "high"])
    value = getattr(cell, name)
    return value if column.is_counted and name == "mean" else short(value)


def short(value: Any) -> Any:
    """A number with six digits; anything else as it is."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def number(column: Column, value: float | None, sign: str = "") -> str:
    if value is None:
        return NOTHING
    return rounded(value, column.digits, sign)


def rounded(value: float, digits: int, sign: str = "") -> str:
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no "-0.00"
