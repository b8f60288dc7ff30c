"""A comparison as text: what a terminal shows, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from vltune.metrics.metric import PERCENT, declared
from vltune.results.compare.model import MEASURED, Comparison, Row, same_machine
from vltune.results.render.text import NOTHING, rounded, short
from vltune.results.tables import build
from vltune.results.tables.machines import PORTABLE, arithmetic

if TYPE_CHECKING:
    from rich.console import Group

    from vltune.records.folders import RecordFile

_TIMES = "\u00d7"
_HEADER = ("task", "method", "score", "A", "B", "B - A", "seeds", "same", "p", "p seeds", "step", "latency")
_LEFT = 3
"""Columns of text; the others are numbers."""
_NAMED = 3
"""Configurations that a line names; more are counted."""


def terminal(comparison: Comparison) -> Group:
    """A table for each backbone, and lines below; 120 columns hold them."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts = [Text(_summary(comparison))]
    for backbone, rows in _by_backbone(comparison).items():
        table = Table(title=backbone, box=box.SIMPLE_HEAD, padding=0, show_edge=False, title_justify="left")
        for number, name in enumerate(_HEADER):
            table.add_column(Text(name), justify="left" if number < _LEFT else "right", overflow="fold")
        for cells in _body(rows):
            table.add_row(*map(Text, cells))
        parts += ["", table]
    parts += ["", Text(_legend(comparison))]
    for heading, lines in _sections(comparison):
        parts += ["", Text(f"{heading}:"), *map(Text, lines)]
    return Group(*parts)


def brief(comparison: Comparison) -> str:
    """In two lines how far the runs of both are apart, and whether that is to be expected."""
    rows = [row for row in comparison.rows if row.kind == "records" and row.finished]
    pairs = [pair for row in rows for pair in row.finished]
    if not pairs:
        return "finished in both: none"
    told = [f"finished in both: {len(pairs)}; with equal scores: {sum(pair.equal for pair in pairs)}"]
    shares = [100 * found.same / found.common for row in rows if (found := row.predictions) and found.common]
    if shares and min(shares) < 100:
        told.append(f"predictions the same: {min(shares):.1f} to {max(shares):.1f} % of a row's")
    if all(pair.equal for pair in pairs):
        return "; ".join(told)
    sizes = (f"{size} {'points' if unit == PERCENT else unit}" for unit, size in _apart(rows).items())
    told.append(f"scores apart: up to {', '.join(sizes)}")
    ours, theirs = map(_processors, zip(*((pair.a, pair.b) for pair in pairs), strict=True))
    alike = all(pair.a.record["identity"]["hash"] == pair.b.record["identity"]["hash"] for pair in pairs)
    return f"{'; '.join(told)}\n{_expected(ours, theirs, alike)}"


def _apart(rows: list[Row]) -> dict[str, str]:
    """{unit: by how much scores of it are apart at most}"""
    most: dict[str, tuple[float, str, str]] = {}
    for experiment, pair in ((row.experiment, pair) for row in rows for pair in row.finished):
        metrics = declared(pair.a.record)
        for score, (one, other) in pair.scores.items():
            name = score.partition(".")[2]
            unit = metrics[name].unit if name in metrics else PERCENT  # of a record from before metrics were declared
            most[unit] = max(most.get(unit, (-1.0, "", "")), (abs(one - other), experiment, name))
    return {unit: rounded(size, build.digits(*where)) for unit, (size, *where) in most.items()}


def _expected(ours: str, theirs: str, alike: bool) -> str:
    """alike: whether all are of the same configuration."""
    if ours == theirs:
        return f"both on {ours}: other code, versions or settings; the whole comparison says which"
    if not alike:
        return f"{ours} here, {theirs} there, and other settings; the whole comparison says which"
    return (
        f"{ours} here, {theirs} there: each kind of processor rounds otherwise, which moves scores as much as another seed "
        "does; expected (docs/statistics.md)"
    )


def _processors(runs: Iterable[RecordFile]) -> str:
    names = {_processor(run.record) for run in runs}
    return " and ".join(sorted(names))


def _processor(record: dict) -> str:
    """What rounded its scores: portable kernels, which round alike on several, or a processor."""
    if (found := arithmetic(record)) in PORTABLE.values():
        return found
    return record["provenance"]["hardware"].get("cpu") or "an unknown processor"


def markdown(comparison: Comparison) -> str:
    """GitHub-flavoured tables, one for each backbone, and lists below."""
    parts = [f"# {comparison.a} and {comparison.b}", _summary(comparison)]
    for backbone, rows in _by_backbone(comparison).items():
        lines = [_HEADER, *_body(rows)]
        lines = [f"| {' | '.join(line)} |" for line in lines]
        lines.insert(1, f"|{'---|' * _LEFT}{'---:|' * (len(_HEADER) - _LEFT)}")
        parts += [f"## {backbone}", "\n".join(lines)]
    parts.append(_legend(comparison))
    for heading, lines in _sections(comparison):
        quoted = (line.replace("`", "'") for line in lines)
        parts += [f"{heading}:", "\n".join(f"- `{line}`" for line in quoted)]
    return "\n\n".join(parts) + "\n"


def comma_separated(comparison: Comparison) -> str:
    """A line for each score of each configuration: in percent, with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    identity = ("kind", "backbone", "task_dataset", "method", "hash_a", "hash_b")
    scores = ("score", "a", "b", "difference", "seeds", "predictions_common", "predictions_same")
    tests = ("p_examples", "p_seeds")
    writer.writerow([*identity, *scores, *tests, *(f"{name}_ratio" for name in MEASURED)])
    for row in comparison.rows:
        configuration = [row.kind, row.backbone, row.experiment, row.method, *row.hashes]
        common = [row.predictions.common, row.predictions.same] if row.predictions else [None, None]
        ratios = [row.ratios.get(name) for name in MEASURED]
        for name, score in row.scores.items():
            numbers = [score.a, score.b, score.difference, score.n]
            chance = row.chance if name == row.shown else None
            tested = [chance.examples, chance.seeds] if chance else [None, None]
            writer.writerow(map(short, [*configuration, name, *numbers, *common, *tested, *ratios]))
    return text.getvalue()


def as_json(comparison: Comparison) -> str:
    """Everything that was found; scores in percent."""
    content = {
        "a": str(comparison.a),
        "b": str(comparison.b),
        "rows": [_row(row) for row in comparison.rows],
        "only_a": comparison.only_a,
        "only_b": comparison.only_b,
        "statuses": comparison.statuses,
        "provenance": [vars(change) for change in comparison.provenance],
        "notes": comparison.notes,
        "broken": comparison.broken,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


TEXT: dict[str, Callable[[Comparison], str]] = {"md": markdown, "csv": comma_separated, "json": as_json}


def _row(row: Row) -> dict:
    agreement = row.predictions
    return {
        "kind": row.kind,
        "backbone": row.backbone,
        "task_dataset": row.experiment,
        "method": row.method,
        "hashes": row.hashes,
        "settings": row.settings,
        "seeds": [
            {
                "seed": pair.seed,
                "files": [str(pair.a.file), str(pair.b.file)],
                "statuses": [pair.a.record["status"], pair.b.record["status"]],
                "metrics": [pair.a.record["metrics"], pair.b.record["metrics"]],
            }
            for pair in row.pairs
        ],
        "scores": {
            name: {"a": score.a, "b": score.b, "difference": score.difference, "n": score.n}
            for name, score in row.scores.items()
        },
        "predictions": vars(agreement) if agreement else None,
        "costs": row.costs,
        "ratios": row.ratios,
        "p": {"examples": row.chance.examples, "seeds": row.chance.seeds} if row.chance else None,
    }


def _by_backbone(comparison: Comparison) -> dict[str, list[Row]]:
    """What was trained: costs without a run have no score to show."""
    backbones: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.kind == "records":
            backbones.setdefault(row.backbone, []).append(row)
    return backbones


def _body(rows: list[Row]) -> list[list[str]]:
    """The texts of each row: hashes stand where a method has several configurations, or another one in B."""
    configurations = Counter((row.experiment, row.method) for row in rows)
    several = [configurations[row.experiment, row.method] > 1 or len(set(row.hashes)) > 1 for row in rows]
    shown = {(row.experiment, _name(row)) for row in rows if row.shown}
    digits = {which: build.digits(*which) for which in shown}
    return [
        _cells(row, with_hashes, digits.get((row.experiment, _name(row)), 0))
        for row, with_hashes in zip(rows, several, strict=True)
    ]


def _name(row: Row) -> str:
    """Of the metric that is shown."""
    return (row.shown or "").partition(".")[2]


def _cells(row: Row, with_hashes: bool, digits: int) -> list[str]:
    score = row.scores.get(row.shown)
    numbers = [NOTHING] * 3
    if score:
        numbers = [rounded(score.a, digits), rounded(score.b, digits), rounded(score.difference, digits, "+")]
    ratios = [f"{_TIMES}{row.ratios[name]:.2f}" if name in row.ratios else NOTHING for name in MEASURED[:2]]
    return [
        row.experiment,
        f"{row.method} {' -> '.join(dict.fromkeys(row.hashes))}" if with_hashes else row.method,
        _score(row),
        *numbers,
        str(score.n if score else 0),
        _predictions(row),
        *([_p(row.chance.examples), _p(row.chance.seeds)] if row.chance else [NOTHING, NOTHING]),
        *ratios,
    ]


def _score(row: Row) -> str:
    """Its name, and its unit where that is not percent."""
    name = (row.shown or NOTHING).removeprefix("test.").replace(".", " ")
    return f"{name} ({row.measured.unit})" if row.measured and row.measured.unit != PERCENT else name


def _predictions(row: Row) -> str:
    agreement = row.predictions
    if agreement is None:
        return NOTHING
    if agreement.identical:
        return "identical"
    if not agreement.common:
        return "none common"
    share = (
        f"{min(100 * agreement.same / agreement.common, 99.99):.2f} %" if agreement.same < agreement.common else "100 %"
    )
    return f"{share} of {agreement.common:,}" if agreement.alone else share


def _p(chance: float | None) -> str:
    if chance is None:
        return NOTHING
    return f"{chance:.3f}" if chance >= 0.001 else "<0.001"


def _summary(comparison: Comparison) -> str:
    trained = [row for row in comparison.rows if row.kind == "records"]
    finished = [pair for row in trained for pair in row.finished]
    same = sum(pair.equal for pair in finished)
    both, measured = sum(len(row.pairs) for row in trained), len(comparison.rows) - len(trained)
    return f"Runs in both: {both}; finished in both: {len(finished)}; with equal scores: {same}." + (
        f" Costs without a run (mode=cost) in both: {measured}." if measured else ""
    )


def _legend(comparison: Comparison) -> str:
    trained = [pair for row in comparison.rows if row.kind == "records" for pair in row.finished]
    elsewhere = sum(not same_machine(pair) for pair in trained)
    told = [
        f"A: {comparison.a}, B: {comparison.b}. Scores: means over the seeds that finished in both,"
        " in percent if no unit is named, of test if not named.",
        "Same: share of the examples with the same prediction.",
        "Step, latency: medians of B's times over A's.",
    ]
    if any(row.chance for row in comparison.rows):
        told.append(
            "p: that these runs would score the same on other examples; p seeds: that other seeds would too, on other"
            " examples; both corrected for the rows that differ (docs/statistics.md)."
        )
    if elsewhere:
        told.append(f"Times of {elsewhere} of {len(trained)} runs are not compared: other or unknown hardware.")
    return " ".join(told)


def _sections(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """(heading, lines), where there are any."""
    changes = [f"{change.name}: {change.a} -> {change.b} ({change.count})" for change in comparison.provenance]
    sections = [
        (
            "Other configurations",
            _grouped((_settings(row), row) for row in comparison.rows if len(set(row.hashes)) > 1),
        ),
        ("Other costs", _grouped((_cost(*cost), row) for row in comparison.rows for cost in row.costs.items())),
        ("Other status", comparison.statuses),
        ("Only in A", comparison.only_a),
        ("Only in B", comparison.only_b),
        (f"Other code, versions or machine (in how many of {len(comparison.pairs)} pairs)", changes),
        ("Notes", comparison.notes),
        ("Files that cannot be used", comparison.broken),
    ]
    return [(heading, list(lines)) for heading, lines in sections if lines]


def _settings(row: Row) -> str:
    return "; ".join(row.settings) or "all settings agree: other data, other weights or an earlier version's hash"


def _cost(name: str, values: tuple[int, int]) -> str:
    one, other = values
    change = f" ({100 * (other - one) / one:+.1f} %)" if one else ""
    return f"{name}: {one:,} -> {other:,}{change}"


def _grouped(told: Iterable[tuple[str, Row]]) -> list[str]:
    """Each text once, after the configurations that it is said of."""
    groups: dict[str, list[Row]] = {}
    for text, row in told:
        groups.setdefault(text, []).append(row)
    lines = []
    for text, rows in groups.items():
        names = dict.fromkeys(f"{row.name}{' (mode=cost)' if row.kind == 'costs' else ''}" for row in rows)
        lines.append(f"{', '.join(names) if len(names) <= _NAMED else f'{len(names)} configurations'}: {text}")
    return lines
