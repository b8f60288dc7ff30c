"""One picture per table: score against each of its two costs, along its columns, or row by row."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING

from vltune.catalogue import PAPER
from vltune.metrics.metric import PERCENT
from vltune.results.tables.build import TYPED, Column, Table, TableRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLE = {"font.size": 11, "svg.hashsalt": "vltune", "axes.spines.top": False, "axes.spines.right": False}
_METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
MANY = 12
"""Rows of which not all are named at their points: those on the frontier and the paper's are."""
# Shapes of marks, as on the page, by a row's place among those of its colour.
_MARKS = ("o", "s", "^", "D", "v", "P", "*", "h", "X", "d", "_", "p")
# Label positions in points from the marker, nearest first.
_DIRECTIONS = ((1, 0.7), (1, -0.7), (-1, 0.7), (-1, -0.7), (0, 1), (0, -1), (1, 0), (-1, 0))
_OFFSETS = [(radius * x, radius * y) for radius, (x, y) in product((9, 16, 26, 38, 52), _DIRECTIONS)]
_ALIGN = {-1: ("right", "top"), 0: ("center", "center"), 1: ("left", "bottom")}


def draw(table: Table, format: str) -> bytes:
    """The picture as `png` or `svg`, the same bytes for the same table.

    Filled: ours, with the standard deviation over seeds; hollow: published.  A control is a line, and so is a score
    whose cost was not measured.  Along columns, each row is a line; row by row, each has its place and name on an axis.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE}):
        figure = Figure(figsize=(12, 5), dpi=120)
        FigureCanvasAgg(figure)
        along, by_row = table.figure.get("along"), table.figure.get("by_row")
        panels = figure.subplots(1, 1 if along or by_row else 2, sharey=True, squeeze=False)[0]
        figure.subplots_adjust(left=0.07, right=0.985, top=0.91, bottom=0.13, wspace=0.06)
        cells = [cell for row in table.rows for cell in row.cells.values()]
        signs = ["filled: ours", "hollow: published"] if any(cell.published is not None for cell in cells) else []
        signs += [f"{TYPED}: typed by a person"] if any(cell.typed for cell in cells) else []
        figure.suptitle(f"{table.title} ({'; '.join(signs)})" if signs else table.title)
        if along:
            _lines(panels[0], table, along)
        elif by_row:
            figure.subplots_adjust(left=0.17)
            _rows(panels[0], table)
        else:
            score = table.column(table.figure["score"])
            panels[0].set_ylabel(score.title)
            if score.less:  # better is up
                panels[0].invert_yaxis()
            for axes, key in zip(panels, table.figure["against"], strict=True):
                _panel(axes, table, key)
            if len(table.rows) > MANY:
                figure.set_figheight(7.5)
                figure.subplots_adjust(bottom=0.14)
                _families(panels[-1], table)
        for axes in panels:
            axes.grid(alpha=0.25)
            if not axes.lines:
                axes.text(0.5, 0.5, "no finished run", transform=axes.transAxes, ha="center")
        data = io.BytesIO()
        figure.savefig(data, format=format, metadata=_METADATA[format])
        return data.getvalue()


def _lines(axes: Axes, table: Table, keys: list[str]) -> None:
    """A line for each row, beside each other so that error bars stay apart."""
    axes.set_xticks(range(len(keys)), [table.column(key).title for key in keys])
    units = dict.fromkeys(column.metric.unit if column.metric else PERCENT for column in map(table.column, keys))
    axes.set_ylabel(f"score, {' or '.join(units)}")
    if all(table.column(key).less for key in keys):  # better is up
        axes.invert_yaxis()
    for number, row in enumerate(table.rows):
        cells = [(place, row.cells[key]) for place, key in enumerate(keys) if row.cells[key].mean is not None]
        if cells:
            aside = 0.02 * (number - len(table.rows) / 2)
            places, means = [place + aside for place, _ in cells], [cell.mean for _, cell in cells]
            spread = [cell.std or 0.0 for _, cell in cells]
            axes.errorbar(places, means, spread, fmt=f"{_mark(row)}-", color=_color(row), capsize=3, label=row.label)
    if axes.lines:
        axes.legend(loc="upper left")


def _rows(axes: Axes, table: Table) -> None:
    """The first on top, with a line through its score for the others to be seen against."""
    column = table.column(table.figure["score"])
    cells = [row.cells[column.key] for row in table.rows]
    axes.set_yticks(range(len(cells)), [row.label for row in table.rows])
    axes.invert_yaxis()
    for place, (row, cell) in enumerate(zip(table.rows, cells, strict=True)):
        if cell.mean is not None:
            axes.errorbar(cell.mean, place, xerr=cell.std, fmt=_mark(row), color=_color(row), capsize=3)
    if cells[0].mean is not None:
        axes.axvline(cells[0].mean, color="0.7", linestyle="--", linewidth=1)
    axes.set_xlabel(column.title)


def _panel(axes: Axes, table: Table, key: str) -> None:
    score = table.figure["score"]
    points, markers, named = {}, [], set(_named(table, key))
    for row in table.rows:
        color, name = _color(row), row.label in named
        x, y = row.cells[key], row.cells[score]
        if None not in (x.published, y.published):
            axes.plot(x.published, y.published, _mark(row), color=color, markerfacecolor="none")
            points |= {row.label: (x.published, y.published, color)} if name else {}
            markers.append((x.published, y.published, 0.0))
        if y.mean is None:
            continue
        label = f"{row.label}{TYPED}" if y.typed else row.label
        if x.mean is not None and not row.presentation.is_control:
            axes.errorbar(x.mean, y.mean, y.std, fmt=_mark(row), color=color, capsize=3)
            points |= {label: (x.mean, y.mean, color)} if name else {}
            markers.append((x.mean, y.mean, y.std or 0.0))
        else:
            _across(axes, f"{label} {y.mean:.{table.column(score).digits}f}", y.mean, color, _range(table, score))
    axes.set_xlabel(table.column(key).title)
    _scale(axes, [x for x, *_ in markers])
    _annotate(axes, points, markers)


def _range(table: Table, score: str) -> tuple[float, float]:
    """Of the scores, deviations included, that a panel of many rows is about: controls are none of them."""
    cells = [row.cells[score] for row in table.rows if not row.presentation.is_control]
    ends = [cell.mean + sign * (cell.std or 0.0) for cell in cells if cell.mean is not None for sign in (-1, 1)]
    few = len(table.rows) <= MANY or not ends
    return (-math.inf, math.inf) if few else (min(ends), max(ends))


def _across(axes: Axes, label: str, value: float, color: str, within: tuple[float, float]) -> None:
    """A line over the whole width, or a word at the end of the axis beyond which it lies."""
    place = {"ha": "right", "va": "bottom", "color": color}
    if within[0] <= value <= within[1]:
        axes.axhline(value, color=color, linestyle="--", linewidth=1)
        axes.text(0.99, value, label, transform=axes.get_yaxis_transform(), **place)
        return
    beyond_top = (value > within[1]) != axes.yaxis_inverted()
    height, arrow = (0.96, "↑") if beyond_top else (0.01, "↓")
    axes.text(0.99, height, f"{label} {arrow}", transform=axes.transAxes, **place)


def _color(row: TableRow) -> str:
    """One colour per method in every figure; grey where it says none."""
    return "0.4" if row.presentation.colour is None else f"C{row.presentation.colour}"


def _mark(row: TableRow) -> str:
    return _MARKS[row.shape % len(_MARKS)]


def _named(table: Table, key: str) -> Iterator[str]:
    """Labels of the rows that have their names at their points: all of few, of many those that nothing matches or beats in
    both columns, and the paper's."""
    score, cost = table.column(table.figure["score"]), table.column(key)
    front = set(frontier(table.rows, cost, score))
    for row in table.rows:
        if len(table.rows) <= MANY or row.label in front or PAPER in row.presentation.families:
            yield row.label


def frontier(rows: Sequence[TableRow], cost: Column, score: Column) -> Iterator[str]:
    """Labels of those methods that no other matches in both columns and beats in one, of all that have both."""
    costs = -1 if cost.less or not cost.is_score else 1
    scores = -1 if score.less else 1
    found = {
        row.label: (costs * x, scores * y)
        for row in rows
        if not row.presentation.is_control
        and (x := row.cells[cost.key].mean) is not None
        and (y := row.cells[score.key].mean) is not None
    }
    for label, own in found.items():
        if not any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in found.values()):
            yield label


def _families(axes: Axes, table: Table) -> None:
    """What the colours mean, where not every mark has its name."""
    from matplotlib.lines import Line2D

    colours = {row.presentation.family: _color(row) for row in table.rows if row.presentation.family}
    marks = [
        Line2D([], [], color=color, marker="o", linestyle="", label=family.replace("_", " "))
        for family, color in colours.items()
    ]
    axes.legend(handles=marks, loc="upper center", bbox_to_anchor=(0.0, -0.11), ncols=len(marks), frameon=False)


def _scale(axes: Axes, values: list[float]) -> None:
    """A logarithmic axis where costs span decades, linear about zero where some method costs nothing."""
    positive = [value for value in values if value > 0]
    if not positive:
        return
    if min(values) <= 0:
        axes.set_xscale("symlog", linthresh=10 ** math.floor(math.log10(min(positive))), linscale=0.5)
    elif max(positive) > 10 * min(positive):
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12, y=0.12)


def _annotate(
    axes: Axes, points: dict[str, tuple[float, float, str]], markers: list[tuple[float, float, float]]
) -> None:
    """Writes each label at the nearest place where it covers no marker and no label.

    points: {label: (x, y, colour)}; markers: (x, y, half the error bar).
    """
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    taken = []
    for x, y, std in markers:
        (left, bottom), (right, top) = axes.transData.transform([(x, y - std), (x, y + std)])
        taken.append(Bbox.from_extents(left - 6, bottom - 6, right + 6, top + 6))
    for label, (x, y, color) in points.items():
        line = {"arrowstyle": "-", "color": color, "alpha": 0.5, "linewidth": 0.7}
        text = axes.annotate(
            label, (x, y), color=color, xytext=_OFFSETS[0], textcoords="offset points", arrowprops=line
        )
        for offset in _OFFSETS:
            sides = [(part > 0) - (part < 0) for part in offset]
            text.set_position(offset)
            text.set(ha=_ALIGN[sides[0]][0], va=_ALIGN[sides[1]][1])
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)
            inside = (
                axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
            )
            if inside and not box.count_overlaps(taken):
                break
        taken.append(box)
