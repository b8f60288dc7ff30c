"""Two folders of records side by side: which runs are the same, and in what they differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import mean, median
from typing import Any

from vltune.errors import UserError
from vltune.metrics.metric import Metric, declared, primary
from vltune.records import folders, predictions, store
from vltune.records.folders import RecordFile
from vltune.records.predictions import PREDICTIONS, Agreement
from vltune.records.record import Kind, flatten, is_counted, started
from vltune.results.compare.differences import chances
from vltune.results.compare.model import (
    MEASURED,
    SLACK,
    SPLITS,
    Change,
    Comparison,
    Pair,
    Row,
    Score,
    same_machine,
    scores_of,
)
from vltune.results.tables.cautions import MEASURING
from vltune.results.tables.presentations import NONE, Methods

_LONGEST = 60
"""Characters of a value that is shown."""
_MISSING = object()

Key = tuple[Kind, str, str, str, str, str]
"""A configuration: kind, backbone, task, data set, method, hash."""
Configurations = dict[Key, dict[int, RecordFile]]
"""{configuration: {seed: its run}}; what `mode=cost` measured has the one seed 0."""


def compare(a: Path, b: Path, methods: Methods = NONE) -> Comparison:
    """The records of folder `a` beside those of folder `b`, each of results or of records in any order.

    A configuration is the same where its hash is; what is left is paired with the configuration of the same backbone, task,
    data set and method that differs in the fewest settings.  Raises UserError where a folder is missing or empty."""
    broken: list[str] = []
    notes: list[str] = []
    runs_a, runs_b = (_load(Path(folder), broken, notes) for folder in (a, b))
    matched = _match(runs_a, runs_b)
    rows = tuple(
        _row(key, other, runs_a[key], runs_b[other])
        for key, other in sorted(matched.items(), key=lambda match: _order(match[0], methods))
        if runs_a[key].keys() & runs_b[other].keys()
    )
    tested = chances(rows)
    rows = tuple(replace(row, chance=tested.get(place)) for place, row in enumerate(rows))
    return Comparison(
        a=Path(a),
        b=Path(b),
        rows=rows,
        only_a=tuple(_alone(runs_a, {key: runs_b[other] for key, other in matched.items()}, methods)),
        only_b=tuple(_alone(runs_b, {other: runs_a[key] for key, other in matched.items()}, methods)),
        statuses=tuple(line for row in rows for line in _statuses(row)),
        provenance=tuple(_provenance(rows)),
        notes=tuple(dict.fromkeys(notes)),
        broken=tuple(dict.fromkeys(broken)),
        kinds=frozenset(kind for kind, *_ in (*runs_a, *runs_b)),
    )


def failures(comparison: Comparison, tolerance: float) -> list[str]:
    """One line for each reason to say that B is not A: a score of a pair that differs by more than `tolerance` (hundredths
    of a score: percentage points of what is in percent, a hundredth of a cosine) or is missing in one, a run that finished
    in one of them alone, a file that cannot be used, and that no run (where there are none: no cost) finished in both."""
    found = [line for row in comparison.rows for line in _statuses(row)]
    found += [f"cannot be used: {line}" for line in comparison.broken]
    for row in comparison.rows:
        for pair in row.finished:
            scores_a, scores_b, metrics = scores_of(pair.a), scores_of(pair.b), declared(pair.a.record)
            for name in sorted(scores_a.keys() | scores_b.keys()):
                one, other = scores_a.get(name), scores_b.get(name)
                if one is None or other is None:
                    found.append(f"{row.name}, seed {pair.seed}: {name} is in {'A' if other is None else 'B'} only")
                elif abs(other - one) > (tolerance + SLACK) * _factor(metrics, name) / 100:
                    digits = 2 if _factor(metrics, name) == 100 else 4
                    told = f"{one:.{digits}f} -> {other:.{digits}f} ({other - one:+.4g})"
                    found.append(f"{row.name}, seed {pair.seed}: {name} {told}")
    of_runs = "records" in comparison.kinds
    if not any(row.finished for row in comparison.rows if row.kind == "records" or not of_runs):
        found.append("no run finished in both")
    return found


def _factor(metrics: Mapping[str, Metric], score: str) -> float:
    """By which a mean over predictions was multiplied; score: a split's, as `val.accuracy`."""
    metric = metrics.get(score.rpartition(".")[2])
    return metric.factor if metric else 100.0


def differences(a: Any, b: Any, prefix: str = "") -> Iterator[str]:
    """`key: value in A -> value in B` of two nested dicts.  What one of them lacks is named once, whatever it holds."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from differences(a.get(key, _MISSING), b.get(key, _MISSING), f"{prefix}.{key}" if prefix else key)
    elif a != b:
        yield f"{prefix}: {_value(a)} -> {_value(b)}"


def _load(folder: Path, broken: list[str], notes: list[str]) -> Configurations:
    before = len(broken)
    runs: Configurations = {}
    for run in folders.find(folder, lambda error: broken.append(str(error))):
        identity = run.record["identity"]
        key = (run.kind, *(identity[name] for name in ("backbone", "task", "dataset", "method", "hash")))
        seeds, seed = runs.setdefault(key, {}), identity["seed"] if run.kind == "records" else 0
        if seed in seeds:
            run, other = sorted((seeds[seed], run), key=lambda run: (run.nearness, started(run.record)), reverse=True)
            notes.append(_doubled(run, other))
        seeds[seed] = run
    if apart := folders.apart(folder):
        names = ", ".join(each.name for each in apart)
        notes.append(f"{folder}: records of their own lie in {names}, and are not compared: give each by itself")
    broken += [run.trouble for seeds in runs.values() for run in seeds.values() if run.trouble]
    if not runs:
        held = (
            f"no valid record among {len(broken) - before} files, such as {broken[before]}" if broken[before:] else ""
        )
        raise UserError(f"{folder}: holds {held or 'no records: give a folder of results, or one that holds records'}")
    return runs


def _doubled(used: RecordFile, other: RecordFile) -> str:
    why = "comes first"
    if used.nearness != other.nearness:
        why = "lies where its identity belongs"
    elif started(used.record) != started(other.record):
        why = "started later"
    return f"{other.file} is a record of the same run as {used.file}, which {why} and is compared"


def _match(a: Configurations, b: Configurations) -> dict[Key, Key]:
    """{configuration of A: configuration of B}: by hash, then those that differ least and share a seed."""
    matched = {key: key for key in a if key in b}
    near = []
    for key in a.keys() - b.keys():
        for other in b.keys() - a.keys():
            if key[:-1] == other[:-1] and (common := a[key].keys() & b[other].keys()):
                near.append((len(_settings(a[key], b[other])), -len(common), key, other))
    taken: set[Key] = set()
    for _, _, key, other in sorted(near):
        if key not in matched and other not in taken:
            matched[key] = other
            taken.add(other)
    return matched


def _settings(a: dict[int, RecordFile], b: dict[int, RecordFile]) -> tuple[str, ...]:
    one, other = (store.settings(next(iter(seeds.values())).record) for seeds in (a, b))
    return tuple(differences(one, other))


def _order(key: Key, methods: Methods) -> tuple:
    kind, backbone, task, dataset, method, digest = key
    place = methods[method].place if method in methods else (inf, method)
    return kind == "costs", backbone, task, dataset, place, digest


def _row(key: Key, other: Key, a: dict[int, RecordFile], b: dict[int, RecordFile]) -> Row:
    kind, backbone, task, dataset, method, digest = key
    pairs = tuple(Pair(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys()))
    finished = [pair for pair in pairs if pair.finished]
    scores = _means(finished)
    metrics = next(filter(None, (declared(pair.b.record) for pair in finished)), {})
    agreements = [found for pair in finished if (found := _agreement(pair))]
    return Row(
        kind=kind,
        backbone=backbone,
        experiment=f"{task}-{dataset}",
        method=method,
        hashes=(digest, other[-1]),
        pairs=pairs,
        settings=_settings(a, b) if key != other else (),
        scores=scores,
        shown=_shown(scores, metrics),
        metrics=metrics,
        predictions=sum(agreements, Agreement()) if agreements else None,
        costs=_costs(finished),
        ratios=_ratios(finished),
    )


def _means(pairs: list[Pair]) -> dict[str, Score]:
    found: dict[str, list[tuple[float, float]]] = {}
    for pair in pairs:
        for name, values in pair.scores.items():
            found.setdefault(name, []).append(values)
    return {
        name: Score(mean(one for one, _ in values), mean(other for _, other in values), len(values))
        for name, values in found.items()
    }


def _shown(scores: dict[str, Score], metrics: Mapping[str, Metric]) -> str | None:
    """What a table shows of a task: its primary metric, of test where that is there, else the first score."""
    first = primary(metrics.values())
    wanted = [f"{split}.{first.name}" for split in SPLITS] if first else []
    return next((name for name in wanted if name in scores), next(iter(scores), None))


def _agreement(pair: Pair) -> Agreement | None:
    """None where one of the runs has no predictions to read, where both read other splits, and where predictions are
    pictures, which lie elsewhere; those that are broken are told by `_load`."""
    runs = pair.a, pair.b
    if not all(map(pair.same_splits, SPLITS)):
        return None
    if not all(predictions.are_there(run.beside(PREDICTIONS), run.record) for run in runs):
        return None
    try:
        if any(predictions.names_images(run.beside(PREDICTIONS)) for run in runs):
            return None
        return predictions.agreement(*(predictions.read(run.beside(PREDICTIONS), run.record) for run in runs))
    except UserError:
        return None


def _costs(pairs: list[Pair]) -> dict[str, tuple[int, int]]:
    """Of the first pair that differs: a configuration decides them, not the seed."""
    found: dict[str, tuple[int, int]] = {}
    for pair in pairs:
        costs_a, costs_b = (flatten(run.record["cost"]) for run in (pair.a, pair.b))
        for name in filter(is_counted, costs_a):
            one, other = costs_a[name], costs_b.get(name)
            if one is not None and other is not None and one != other:
                found.setdefault(name, (one, other))
    return found


def _ratios(pairs: list[Pair]) -> dict[str, float]:
    costs = [[flatten(run.record["cost"]) for run in (pair.a, pair.b)] for pair in pairs if same_machine(pair)]
    ratios = {
        name: [other[name] / one[name] for one, other in costs if one.get(name) and other.get(name)]
        for name in MEASURED
    }
    return {name: median(values) for name, values in ratios.items() if values}


def _alone(runs: Configurations, counterparts: dict[Key, dict[int, RecordFile]], methods: Methods) -> Iterator[str]:
    for key in sorted(runs, key=lambda key: _order(key, methods)):
        kind, backbone, task, dataset, method, digest = key
        left = {seed: run for seed, run in runs[key].items() if seed not in counterparts.get(key, {})}
        statuses = Counter(run.record["status"] for run in left.values() if not run.finished)
        told = "".join(f", {count} {status}" for status, count in statuses.items())
        if left:
            what = f"seed {', '.join(map(str, sorted(left)))}" if kind == "records" else "mode=cost"
            yield f"{backbone} {task}-{dataset} {method}-{digest}, {what}{told}"


def _statuses(row: Row) -> Iterator[str]:
    seeds: dict[tuple[str, str], list[int]] = {}
    for pair in row.pairs:
        statuses = pair.a.record["status"], pair.b.record["status"]
        if statuses[0] != statuses[1]:
            seeds.setdefault(statuses, []).append(pair.seed)
    for (one, other), found in seeds.items():
        yield f"{row.name}, seed {', '.join(map(str, found))}: {one} -> {other}"


def _provenance(rows: tuple[Row, ...]) -> Iterator[Change]:
    """In the order of `_origin`, of each name the most frequent change first."""
    changes: dict[str, Counter[tuple[str, str]]] = {}
    for pair in (pair for row in rows for pair in row.pairs):
        one, other = (_origin(run.record) for run in (pair.a, pair.b))
        for name in one | other:
            values = _value(one.get(name, _MISSING)), _value(other.get(name, _MISSING))
            changes.setdefault(name, Counter())[values] += values[0] != values[1]
    for name, counts in changes.items():
        for (one, other), count in counts.most_common():
            if count:
                yield Change(name, one, other, count)


def _origin(record: dict) -> dict[str, Any]:
    """What made the numbers of a run, its decisive settings left out, and when."""
    provenance, engine = record["provenance"], record["config"].get("engine", {})
    hardware, commit = provenance["hardware"], provenance["commit"]
    return {
        "commit": f"{commit[:8]}{' and changes' if provenance['dirty'] else ''}" if commit else None,
        **provenance["packages"],
        **{name: hardware.get(name) for name in ("cpu", "cores", "gpus", "platform")},
        "memory": f"{memory / 2**30:.1f} GiB" if (memory := hardware.get("memory_bytes")) else None,
        "precision": provenance["precision"],
        **{f"judges.{name}": which for name, which in (record.get("judges") or {}).items()},
        **{f"engine.{name}": engine[name] for name in (*MEASURING, "workers") if name in engine},
    }


def _value(value: Any) -> str:
    if value is _MISSING:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
