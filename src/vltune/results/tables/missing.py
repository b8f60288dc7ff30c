"""Cells without a score: why, and the commands that fill them."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from textwrap import shorten
from typing import Any

from vltune.records import store
from vltune.records.record import last_line
from vltune.results.tables import cells
from vltune.results.tables.model import Cell, Column, ListedRows, TableRow
from vltune.results.tables.rows import MethodVariant

NOT_RUN = "not run"
NOT_SCORED = "not scored"
"""Of a run that finished: the truth is not published, and nobody typed what a server gave."""


def unfinished(record: dict) -> str:
    """One line: status, run, the last line of its error, file."""
    identity = record["identity"]
    run = f"{identity['method']} {identity['hash']} on {store.experiment(record)}, seed {identity['seed']}"
    why = shorten(last_line(record) or "no reason recorded", 160)
    return f"{record['status']}: {run}: {why} ({record['path']})"


def explained(
    columns: tuple[Column, ...],
    listed: ListedRows,
    variants: list[MethodVariant],
    rows: list[TableRow],
    not_finished: list[dict],
) -> list[TableRow]:
    """The rows with a reason in every empty cell of a task's score.  A control runs only where it says something."""
    failed = {(cells.value(record, listed.field), store.experiment(record)): record for record in not_finished}

    def cell(column: Column, variant: MethodVariant, own: Cell) -> Cell:
        if not column.is_measured or own.mean is not None or variant.presentation.is_control:
            return own
        if _seeds(column.experiment, variant):
            return replace(own, reason=NOT_SCORED)
        record = failed.get((variant.name, column.experiment))
        return replace(own, reason=_short(record) if record else NOT_RUN)

    return [
        replace(row, cells={column.key: cell(column, variant, row.cells[column.key]) for column in columns})
        for row, variant in zip(rows, variants, strict=True)
    ]


def commands(
    backbone: str, columns: tuple[Column, ...], variants: list[MethodVariant], least: Iterable[int]
) -> Iterator[str]:
    """What makes the runs that lack in the table: of each task the seeds that another row has, and those of `least`."""
    experiments = dict.fromkeys(column.experiment for column in columns if column.is_measured)
    for experiment in experiments:
        lacking = _lacking(experiment, variants, least)
        for (seeds, settings), methods in lacking.items():
            task, _, dataset = experiment.partition("-")
            several = "-m " if len(seeds) > 1 or len(methods) > 1 else ""
            numbers = ",".join(map(str, seeds))
            yield (
                f"python run.py {several}backbone={backbone} task={task} dataset={dataset} method={','.join(methods)}"
                f" seed={numbers}{settings}"
            )


def command_of_sweep(
    sweep: tuple[str, str],
    backbone: str,
    columns: tuple[Column, ...],
    variants: list[MethodVariant],
    least: Sequence[int],
) -> Iterator[str]:
    """The sweep, (its name, its folder), that fills the table, while a row lacks a seed that another has in its task, or
    one of `least`; what is there is not run again."""
    found: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for variant, column in product(variants, columns):
        if column.is_measured and not variant.presentation.is_control:
            found[column.experiment][variant.name] |= _seeds(column.experiment, variant)
    lacking: set[int] = set()
    for by_row in found.values():
        wanted = set(least).union(*by_row.values())
        lacking |= set().union(*(wanted - seeds for seeds in by_row.values()))
    if lacking:
        seeds = ",".join(map(str, sorted(lacking.union(least))))
        name, folder = sweep
        yield f"python run.py -m +sweep={name} results_dir=results/{folder} backbone={backbone} seed={seeds}"


def _lacking(
    experiment: str, variants: list[MethodVariant], least: Iterable[int]
) -> dict[tuple[tuple[int, ...], str], list[str]]:
    """{(seeds, settings as a command line has them): the methods that lack these runs}"""
    by_method: dict[str, list[tuple[MethodVariant, set[int]]]] = defaultdict(list)
    for variant in variants:
        if not variant.presentation.is_control:
            by_method[variant.method].append((variant, _seeds(experiment, variant)))
    wanted = set(least).union(*(seeds for found in by_method.values() for _, seeds in found))
    lacking = defaultdict(list)
    for method, found in by_method.items():
        for variant, seeds in [pair for pair in found if pair[1]] or [(None, set())]:
            if missing := tuple(sorted(wanted - seeds)):
                lacking[missing, _settings(variant)].append(method)
    return lacking


def _seeds(experiment: str, variant: MethodVariant) -> set[int]:
    return {run["identity"]["seed"] for run in variant.runs if store.experiment(run) == experiment}


def _settings(variant: MethodVariant | None) -> str:
    """What tells this configuration from its method's others; the record that holds it, where a command cannot say it."""
    if variant is None or variant.settings == {}:
        return ""
    settings = variant.settings or {}
    if not settings or any(part.isdigit() for key in settings for part in key.split(".")):
        return f" # with the settings of {variant.runs[0]['path']}"
    return "".join(f" {shlex.quote(f'{key}={_value(value)}')}" for key, value in settings.items())


def _value(value: Any) -> str:
    """As Hydra reads it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _short(record: dict) -> str:
    """For a cell: the status, and the exception's name."""
    name = last_line(record).partition(":")[0].rpartition(".")[2]
    return f"{record['status']}: {shorten(name, 30, placeholder='...')}" if name else record["status"]
