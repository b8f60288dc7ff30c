"""Which learning rate a method takes: the best of those that were tried, by the validation split.

The choice is written as a configuration, conf/rates/BACKBONE.yaml, which the runs of that backbone read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import isclose
from pathlib import Path
from statistics import mean

from vltune.catalogue import Presentation
from vltune.errors import UserError
from vltune.metrics.metric import Metric, declared, primary
from vltune.records import store
from vltune.records.record import flatten, save
from vltune.results.tables.cells import value
from vltune.results.tables.presentations import NONE, Methods

Tried = dict[str, dict[float, dict[int, float]]]
"""{method: {rate: {seed: its score, in its unit}}}"""


def tried(root: Path) -> dict[str, tuple[str, bool, Tried]]:
    """{backbone: (what was scored, whether less of it is better, the scores)} of the records under `root`.

    Raises UserError where a run is not finished or not scored on validation alone, where a file cannot be used, where a
    backbone has several experiments, where runs differ in more than method, rate and seed (a rate of the head may go along
    with the rate), and where methods differ in how many rates or seeds were tried: then the choice would favour one."""
    found: dict[str, tuple[str, bool, Tried]] = {}
    protocols: dict[tuple[str, ...], dict] = {}
    heads: dict[tuple[str, str], list[tuple[float, float | None]]] = defaultdict(list)
    for record in store.load(root, on_broken=_refuse):
        if store.is_cost(record):
            continue
        file, identity, rate = Path(root) / record["path"], record["identity"], value(record, "config.engine.lr")
        metric, score = _scored(record, file)
        if rate is None:
            raise UserError(f"{file}: field 'config.engine.lr' is null: the record says no learning rate to choose")
        what = f"{metric.name} on the validation split of {store.experiment(record)}"
        begun = what, metric.better == "less", defaultdict(lambda: defaultdict(dict))
        before, _, methods = found.setdefault(identity["backbone"], begun)
        if before != what:
            raise UserError(f"{root}: {identity['backbone']} has {before}, and {what}: choose from one of them")
        seeds = methods[identity["method"]][rate]
        if identity["seed"] in seeds:
            raise UserError(f"{file}: a second run of its method, rate {rate} and seed: keep the one to choose from")
        for whose, run in (((), protocol(record)), ((identity["method"],), of_method(record))):
            if run != (first := protocols.setdefault((identity["backbone"], *whose), run)):
                (name, *_) = [key for key in sorted(run | first) if run.get(key) != first.get(key)]
                told = f"{name} is {run.get(name)}, and {first.get(name)} of others"
                raise UserError(f"{file}: {told}: choose among runs that differ in method, rate and seed alone")
        heads[identity["backbone"], identity["method"]].append((rate, value(record, "config.engine.head_lr")))
        seeds[identity["seed"]] = score
    if not found:
        raise UserError(f"{root}: holds no runs: start python run.py -m +sweep=learning_rates results_dir={root}")
    for of, rates in heads.items():
        _check_heads(f"{root}: {': '.join(of)}", rates)
    for backbone, (*_, methods) in found.items():
        _check_trials(f"{root}: {backbone}", methods)
    return found


def protocol(record: dict) -> dict:
    """What of backbone and engine all runs have in common among which a rate is chosen, by dotted names."""
    settings = store.settings(record)
    found = flatten({group: settings.get(group) or {} for group in ("backbone", "engine")})
    return {key: value for key, value in found.items() if key not in ("engine.lr", "engine.head_lr")}


def of_method(record: dict) -> dict:
    """What those of one method have in common beside that: a method may choose its classifier, or images that are none."""
    settings = store.settings(record)
    found = {group: settings.get(group) or {} for group in ("method", "task", "dataset")}
    return flatten(found | {"fingerprints": record.get("fingerprints") or {}})


def _scored(record: dict, file: Path) -> tuple[Metric, float]:
    if record["status"] != "finished":
        raise UserError(f"{file}: the run is {record['status']}: start the sweep again, it goes on from there")
    if record["metrics"]["test"] is not None:
        raise UserError(f"{file}: the test split was read, which is no part of a choice: use engine.evaluate=[val]")
    metric, scores = primary(declared(record).values()), record["metrics"]["val"] or {}
    if metric is None or metric.name not in scores:
        what = f"no {metric.name}" if metric else "no primary metric"
        raise UserError(f"{file}: has {what} on validation: use engine.evaluate=[val]")
    return metric, scores[metric.name]


def chosen(rates: dict[float, dict[int, float]], less: bool = False) -> float:
    """The rate with the best mean over the seeds; the lowest of equals.  less: whether less is better."""
    return (min if less else max)(sorted(rates), key=lambda rate: mean(rates[rate].values()))


def write(root: Path, out: Path, methods: Methods = NONE) -> list[Path]:
    """Writes `out/BACKBONE.yaml` of each backbone that has runs under `root`; returns the files.  Errors: `tried`'s.

    methods: which there are (`vltune.catalogue`), in whose order the rates are listed.  What a file says of a method that
    was not tried stays."""
    by = made_by(root)
    return [
        save(file, (by[backbone] + _yaml(*of, methods, _others(file, of[2]))).encode())
        for backbone, of in sorted(tried(root).items())
        if (file := Path(out) / f"{backbone}.yaml")
    ]


def made_by(root: Path) -> dict[str, str]:
    """{backbone: how a file begins}, by the sweeps of its runs."""
    names = defaultdict(set)
    for record in store.load(root, on_broken=_refuse, verified=lambda record: False):
        names[record["identity"]["backbone"]].add(record.get("sweep"))
    return {
        backbone: "# " if None in of else f"# Made by {' and '.join(f'+sweep={name}' for name in sorted(of))}: "
        for backbone, of in names.items()
    }


def _others(file: Path, found: Tried) -> dict[str, str]:
    """{method: its line} of those in a file that were not tried."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    named = {line.partition(":")[0]: line for line in lines if line and not line.startswith("#")}
    return {method: line for method, line in named.items() if method not in found}


def _refuse(error: UserError) -> None:
    raise error


def _check_heads(where: str, rates: list[tuple[float, float | None]]) -> None:
    """Raises UserError where a method's head has neither one rate in all runs nor one in proportion to theirs: later runs
    would take another.  rates: of each run its own, and its head's or None."""
    rates = sorted(rates, key=lambda each: each[0])
    (first, of_first), heads = rates[0], {head for _, head in rates}
    if len(heads) > 1 and (None in heads or not all(isclose(head * first, of_first * rate) for rate, head in rates)):
        told = ", ".join(f"{head} with engine.lr={rate}" for rate, head in dict.fromkeys(rates))
        raise UserError(
            f"{where}: engine.head_lr is {told}: choose among runs with one, or with one head_lr_multiplier"
        )


def _check_trials(where: str, methods: Tried) -> None:
    trials = {method: sorted(map(len, rates.values())) for method, rates in methods.items()}
    first, expected = next(iter(trials.items()))
    for method, seeds in trials.items():
        if seeds != expected or len(set(seeds)) > 1:
            raise UserError(
                f"{where}: {first} has rates with {_listed(expected)} seeds, {method} with {_listed(seeds)}: give every "
                "method as many rates, and every rate as many seeds"
            )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _yaml(what: str, less: bool, found: Tried, methods: Methods, others: Mapping[str, str]) -> str:
    """others: lines of an earlier choice, of other methods."""
    seeds = len(next(iter(next(iter(found.values())).values())))
    lines = [
        f"the best rate of each method by {what},",
        f"# {seeds} seed{'s' if seeds > 1 else ''} a rate, and what each rate scored.",
    ]
    for method in sorted({*found, *others}, key=lambda name: methods.get(name, Presentation(name, name)).place):
        if method in others:
            lines.append(others[method])
            continue
        rates = found[method]
        scores = ", ".join(f"{_number(rate)}: {mean(rates[rate].values()):.2f}" for rate in sorted(rates))
        lines.append(f"{method}: {_number(chosen(rates, less), '.0')} # {scores}")
    return "\n".join(lines) + "\n"


def _number(rate: float, whole: str = "") -> str:
    """2e-04, 1.25e-05; YAML reads one as a number only with a point: whole=".0" gives 2.0e-04."""
    digits, exponent = f"{rate:.6e}".split("e")
    digits = digits.rstrip("0").rstrip(".")
    return f"{digits}{'' if '.' in digits else whole}e{exponent}"
