"""What makes numbers of a table hard to compare: how runs were trained, selected and scored, where, and by which code."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from vltune import canonical
from vltune.records import store
from vltune.records.files import is_there
from vltune.records.folders import OnBroken
from vltune.results.tables import cells
from vltune.results.tables.machines import machine
from vltune.results.tables.model import Column, TableRow
from vltune.results.tables.rows import MethodVariant

CARE = ("Compare with care", "Not comparable")
"""How notes on what makes numbers hard to compare begin."""
PROTOCOL = (
    "engine.select",
    "engine.evaluate",
    "engine.eval_examples",
    "engine.epochs",
    "engine.max_steps",
    "engine.batch_size",
)
"""Settings that decide how long is trained and what is scored, the same for all rows of a column."""
READ = ("dataset.train", "dataset.val", "dataset.test", "dataset.images")
"""What is trained and scored on, the same for all rows of a column but controls."""

MATERIALS = ("data", "weights", "tokenizer")
"""What a run reads, of which its record holds fingerprints."""

MEASURING = (
    "accelerator",
    "devices",
    "nodes",
    "strategy",
    "threads",
    "attention",
    "portable",
    "gradient_checkpointing",
    "compile",
    "micro_batch_size",
    "eval_batch_size",
    "cache_features",
)
"""Settings that times and memory depend on; of them `compile` alone decides scores too, as it draws other numbers."""

Searches = dict[str, list[dict]]
"""{method: the runs in which its learning rate was searched}"""


def searches(root: Path, backbone: str, on_broken: OnBroken) -> Searches:
    """The finished runs under `root/learning_rates/`; nothing where there is no such folder.  They are only counted, so
    that their predictions are not looked at."""
    folder = Path(root) / "learning_rates"
    found: Searches = defaultdict(list)
    for record in store.load(folder, on_broken, verified=lambda record: False) if is_there(folder) else ():
        if record["identity"]["backbone"] == backbone and record["status"] == "finished":
            found[record["identity"]["method"]].append(record)
    return dict(found)


def trials(search: Iterable[dict]) -> int | None:
    """How many configurations were tried."""
    return len({record["identity"]["hash"] for record in search}) or None


def of(
    columns: tuple[Column, ...], variants: list[MethodVariant], rows: Sequence[TableRow], searched: Searches
) -> Iterator[str]:
    """One line for each."""
    trained = [variant for variant in variants if variant.runs]
    if trained:
        learning = (row for row, variant in zip(rows, variants, strict=True) if any(map(_learns, variant.runs)))
        yield from _trials([*learning], searched)
        yield from _rates(trained, searched)
    yield from _protocols(columns, trained)
    yield from _parts(trained)
    yield from _materials(columns, trained)
    yield from _judges(columns, trained)
    yield from _several(rows)
    yield from _counts(columns, variants)
    yield from _measuring(columns, trained)
    records = {record["path"]: record for variant in variants for record in variant.records}.values()
    yield from _warned(list(records))
    yield from _provenance(list(records))


def _learns(run: dict) -> bool:
    """Whether anything was trained, so that its learning rate says something."""
    return any(run["cost"][updated] != 0 for updated in ("method_params", "task_params"))


def _trials(rows: list[TableRow], searched: Searches) -> Iterator[str]:
    """How much searching stands behind the scores."""
    counts = {row.method: row.trials for row in rows if not row.presentation.is_control}
    runs = [run for method in counts for run in searched.get(method, ())]
    where = ", ".join(sorted({store.experiment(run) for run in runs}))
    if not runs:
        yield "How the learning rates were chosen is not on record here: how many trials stand behind a score is unknown."
    elif len(set(counts.values())) == 1:
        each = next(iter(counts.values()))
        yield f"Each method's learning rate was chosen among {each}, tried on {where} (learning_rates/), for all columns."
    else:
        told = ", ".join(f"{method} {count or 'unknown'}" for method, count in counts.items())
        yield f"Compare with care: not the same number of learning rates was tried on {where}: {told}."


def _rates(variants: list[MethodVariant], searched: Searches) -> Iterator[str]:
    """Rows whose learning rate is none of those that were tried for their method."""
    for variant in variants:
        tried = {cells.value(run, "config.engine.lr") for run in searched.get(variant.method, ())}
        other = {cells.value(run, "config.engine.lr") for run in variant.runs} - tried - {None}
        if tried and other:
            rates = ", ".join(f"{rate:g}" for rate in sorted(other))
            yield f"Compare with care: {variant.label} ran with learning rate {rates}, which is none of those tried for it."


def _protocols(columns: tuple[Column, ...], variants: list[MethodVariant]) -> Iterator[str]:
    """Columns whose rows were trained, selected or scored otherwise than each other."""
    for experiment, of_experiment in _measured(columns).items():
        for key in (*PROTOCOL, *READ):
            held: dict[str, list[str]] = defaultdict(list)
            for variant in variants:
                runs = [run for run in variant.runs if store.experiment(run) == experiment]
                found = {_text(_protocol(run, key)) for run in runs}
                if key in READ:  # an older record may not say it
                    found = set() if variant.presentation.is_control else found - {_text(None)}
                for text in sorted(found):
                    held[text].append(variant.label)
            if len(held) > 1:
                told = "; ".join(f"{text}: {_labels(labels, held)}" for text, labels in held.items())
                yield (
                    f"Not comparable within {', '.join(of_experiment)}: the rows differ in {key}, in how they were"
                    f" trained, selected or scored ({told})."
                )


def _protocol(run: dict, key: str) -> Any:
    """Splits in one order; no number of epochs where steps say how long is trained."""
    if key == "engine.epochs" and cells.value(run, "config.engine.max_steps") is not None:
        return None
    found = cells.value(run, f"config.{key}")
    return sorted(found) if isinstance(found, list) else found


def _parts(variants: list[MethodVariant]) -> Iterator[str]:
    """Rows whose scores are of the first examples of each split alone."""
    held: dict[int, list[str]] = defaultdict(list)
    for variant in variants:
        for count in sorted(
            {found for run in variant.runs if (found := cells.value(run, "config.engine.eval_examples"))}
        ):
            held[count].append(variant.label)
    if held:
        told = "; ".join(f"{count}: {', '.join(labels)}" for count, labels in sorted(held.items()))
        yield f"Compare with care: trials, scored on the first examples of each split alone ({told})."


def _materials(columns: tuple[Column, ...], variants: list[MethodVariant]) -> Iterator[str]:
    """Rows that read other data or weights than each other, or are of a backbone of other settings."""
    for experiment, names in _measured(columns).items():
        runs = [
            (variant.label, run) for variant in variants for run in variant.runs if store.experiment(run) == experiment
        ]
        for what, of_run in (
            *((part, lambda run, part=part: cells.value(run, f"fingerprints.{part}")) for part in MATERIALS),
            ("settings of the backbone", lambda run: store.settings(run).get("backbone")),
        ):
            held: dict[str, dict[str, None]] = defaultdict(dict)
            for label, run in runs:
                if found := of_run(run):  # a record of before may not say it
                    held[canonical.text(found)][label] = None
            if len(held) > 1:
                most = max(held.values(), key=len)
                others = dict.fromkeys(label for labels in held.values() if labels is not most for label in labels)
                yield f"Compare with care: within {', '.join(names)}, other {what} were used by {', '.join(others)}."


def _judges(columns: tuple[Column, ...], variants: list[MethodVariant]) -> Iterator[str]:
    """Judges of which there were several, so that their figures are of different things."""
    for experiment, names in _measured(columns).items():
        held: dict[str, set[str]] = defaultdict(set)
        for run in (run for variant in variants for run in variant.runs if store.experiment(run) == experiment):
            for name, which in (run.get("judges") or {}).items():
                held[name] |= {which} - {None}
        for name, which in held.items():
            if len(which) > 1:
                yield f"Not comparable within {', '.join(names)}: {name} is several judges: {'; '.join(sorted(which))}."


def _several(rows: Sequence[TableRow]) -> Iterator[str]:
    """Rows of one method that stand beside the same published number."""
    labels: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if any(cell.published is not None and cell.mean is not None for cell in row.cells.values()):
            labels[row.method].append(row.label)
    for of in labels.values():
        if len(of) > 1:
            yield f"Compare with care: one published number stands beside several configurations: {', '.join(of)}."


def _measured(columns: tuple[Column, ...]) -> dict[str, list[str]]:
    """{experiment: the names of its columns}"""
    names: dict[str, list[str]] = defaultdict(list)
    for column in columns:
        if column.is_measured:
            names[column.experiment].append(column.name)
    return names


def _counts(columns: tuple[Column, ...], variants: list[MethodVariant]) -> Iterator[str]:
    """Costs that a configuration decides, and that its runs have several of."""
    for variant, column in product(variants, columns):
        if column.is_counted:
            found = sorted(set(cells.scores(column, variant.method, variant.records).values()))
            if len(found) > 1:
                told = ", ".join(f"{number:g}" for number in found)
                yield (
                    f"Not one number: {column.title} of {variant.label} is {told} in records of one configuration, "
                    "counted by different code, or of what a search left out."
                )


def _measuring(columns: tuple[Column, ...], variants: list[MethodVariant]) -> Iterator[str]:
    """Settings that change times and memory and not the result, where runs of one experiment had several."""
    for experiment in dict.fromkeys(column.experiment for column in columns if column.value.startswith("cost.")):
        runs = [run for variant in variants for run in variant.runs if store.experiment(run) == experiment]
        for key in MEASURING:
            engines = (cells.value(run, "config.engine") or {} for run in runs)
            counts = Counter(_text(engine[key]) for engine in engines if key in engine)
            if len(counts) > 1:
                each = ", ".join(f"{text} ({count})" for text, count in sorted(counts.items()))
                yield f"Compare with care: runs with engine.{key} of {each}; times and memory depend on it."


def _warned(records: list[dict]) -> Iterator[str]:
    """Runs whose training failed, and those that left out examples or ran out of memory."""
    kinds: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for warning in record.get("warnings") or ():
            kinds[warning.partition(":")[0]][warning].append(record)
    for kind, of_kind in kinds.items():
        said = next(iter(of_kind)) if len(of_kind) == 1 else kind
        yield f"Compare with care: {said} ({_some([each for found in of_kind.values() for each in found])})."
    if left := [record for record in records if record.get("bad_examples")]:
        yield f"Compare with care: examples that could not be read were left out ({_some(left)})."
    if halved := [record for record in records if record.get("out_of_memory")]:
        yield f"Compare with care: memory ran out, and parts of a batch were made smaller ({_some(halved)})."


def _some(records: list[dict]) -> str:
    """The first of them, and how many more."""
    names = ", ".join(Path(record["path"]).stem for record in records[:3])
    return f"{names} and {len(records) - 3} more" if len(records) > 3 else names


def _provenance(records: list[dict]) -> Iterator[str]:
    known = any(record["provenance"]["commit"] for record in records)

    def commit(record: dict) -> str | None:
        found = record["provenance"]["commit"]
        return found[:8] if found else "unknown" if known else None

    told = (
        ("machines", machine, "times and memory compare within one alone"),
        ("precisions", lambda record: record["provenance"]["precision"], "scores, times and memory all depend on it"),
        ("commits of the code", commit, "whether the numbers agree across them is not tested here"),
    )
    for what, of_record, why in told:
        counts = Counter(text for record in records if (text := of_record(record)))
        if len(counts) > 1:
            each = ", ".join(f"{text} ({count})" for text, count in sorted(counts.items()))
            yield f"Compare with care: records of {len(counts)} {what}; {why}: {each}."
    if changed := [Path(record["path"]).stem for record in records if record["provenance"]["dirty"]]:
        some = f"{', '.join(changed[:3])}{' and others' if len(changed) > 3 else ''}"
        yield f"Compare with care: {len(changed)} of {len(records)} records are of code that no commit holds: {some}."


def _labels(labels: list[str], held: dict[str, list[str]]) -> str:
    """The rows; that they are the others, where they are the most."""
    return "the others" if len(labels) > 1 and labels is max(held.values(), key=len) else ", ".join(labels)


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
