"""mode=eval: the tuned model of a finished run, scored again."""

from __future__ import annotations

import sys
from collections.abc import Container, Sequence
from copy import deepcopy
from dataclasses import MISSING, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from vltune.assemble.factory import check_values
from vltune.assemble.model import build_pretrained
from vltune.configuration import check_constructors
from vltune.engine import kernels
from vltune.errors import UserError
from vltune.experiment import transfer
from vltune.experiment.outcome import is_judged, unpublished
from vltune.experiment.setup import keep_features, make_fabric, prepare
from vltune.runs.identity import identity as identify
from vltune.runs.signals import Interrupted, StopRequest
from vltune.settings.check import checked, declared, present
from vltune.settings.config import RunConfig
from vltune.settings.engine import Settings
from vltune.settings.kinds import Spec
from vltune.settings.run import HONOURED, RunSettings
from vltune.sharing.adapter import check_tuned, record_of
from vltune.values import key_of, shown

if TYPE_CHECKING:
    from vltune.engine.source import Data


def evaluate(config: RunConfig, overrides: list[str]) -> Path:
    """Scores the tuned model of a record again, and shows both figures."""
    file = config.from_
    try:
        record = record_of(file)
    except UserError as error:
        raise UserError(f"from={error}") from None
    check_tuned(record, file)
    elsewhere = transfer.is_transfer(overrides)
    own = [override for override in overrides if not (elsewhere and transfer.is_of_data(override))]
    scored = of_record(record, file, config.plain, own)
    kernels.choose(**{name: getattr(scored.engine, name) for name in kernels.SETTINGS})
    if elsewhere:
        other = transfer.on_other_data(scored, config.plain, file, overrides)
        unread: list[str] = []

        def score(config: RunConfig, data: Data) -> dict[str, dict[str, float]]:
            transfer.check_numbering(scored, data, file, transfer.fingerprint_of_data(record))
            return figures(config, data, file, unread=unread)

        return transfer.scored_on_other_data(other, record, file, score, unread)
    data, fingerprints = prepare(scored)
    # Which splits are scored now decides nothing of what was tuned.
    tuned = scored.plain["engine"] | {"evaluate": record["config"]["engine"]["evaluate"]}
    identity = identify(scored.plain | {"engine": tuned}, fingerprints)
    if identity["hash"] != record["identity"]["hash"]:
        before = record.get("fingerprints") or {}
        other = [part for part, now in fingerprints.items() if now != before.get(part, now)] or ["data or weights"]
        raise UserError(
            f"{file}: was made with other {' and '.join(other)} than are here "
            f"(a hash of {identity['hash']} for {record['identity']['hash']}): give its own"
        )
    untold = unpublished(record, file)
    for split, found in figures(scored, data, file, untold).items():
        compare(record, split, found)
        if not found and not is_judged(record):
            print(untold.get(split, f"{split} has no score: {transfer.UNKNOWN.format(split)}"))
    return file


def of_record(record: dict, file: Path, composed: dict, overrides: Sequence[str]) -> RunConfig:
    """The record's configuration, with what was typed beside `from=` of what `composed` holds."""
    scored = whole(record["config"], composed, file)
    for override in overrides:
        key = key_of(override)
        if key in ("mode", "from", "busy", "sweep"):
            continue
        if not any(key == name or key.startswith(f"{name}.") for name in HONOURED):
            raise UserError(
                f"{shown(override)}: the record says that; leave it out.  "
                f"Beside from=... there may be {', '.join(HONOURED)}"
            )
        copy_setting(key.split("."), composed, scored)
    check_values(scored)
    check_constructors(scored)
    return RunConfig.of(scored)


def whole(recorded: dict, composed: dict, file: Path) -> dict:
    """A record's configuration, with the settings that are younger than it at the values that they had until then.

    composed: gives what is of a run, and not of its result."""
    config = {name: composed[name] for name in declared(RunSettings)} | deepcopy(recorded) | {"from": None}
    since = {field.name: field.default for field in fields(Settings) if field.default is not MISSING}
    try:
        config["engine"] = since | checked("engine", present(config, "engine"), Spec)
        check_values(config)
        check_constructors(config)
    except UserError as error:
        raise UserError(f"{file}: field 'config': {error}") from None
    return config


def copy_setting(path: Sequence[str], source: dict, target: dict) -> None:
    """Has the target hold at a path of keys what the source does there: a value, or nothing."""
    *above, last = path
    for key in above:
        source = source.get(key) or {}
        if target.get(key) is None:
            target[key] = {}
        target = target[key]
    if last in source:
        target[last] = source[last]
    else:
        target.pop(last, None)


def figures(
    config: RunConfig, data: Data, file: Path, untold: Container[str] = (), unread: list[str] | None = None
) -> dict[str, dict[str, float]]:
    """{split: what the tuned model beside a record scores}, in the first process.

    untold: splits that nothing is computed of, for their truth is not published.  unread: is told the examples that could
    not be read."""
    from vltune.engine import artifacts
    from vltune.engine.memory import evaluating
    from vltune.engine.session import Session
    from vltune.engine.source import BadExamples
    from vltune.evaluators.evaluate import predictions
    from vltune.features.recalled import recall

    settings = config.engine
    fabric = make_fabric(settings)
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)
    model = build_pretrained(config.weights, config.backbone, config.task, config.method, data.facts)
    bad, found = BadExamples(config.dataset["max_bad_examples"]), {}
    with StopRequest() as stop, TemporaryDirectory() as own:
        folder = Path(fabric.broadcast(own))
        session = Session(fabric, model, data, settings, folder / file.name, folder, stop, bad)
        try:
            with evaluating(file.stem, data.eval_batch_size):
                if model.task.recalls:  # as pretrained
                    recall(session, trains=False)
                artifacts.read_tuned(file.with_suffix(".safetensors"), model)
                model.to(fabric.device)
                if settings.cache_features and settings.eval_examples is None:
                    keep_features(session, set(settings.evaluate))
            for split in settings.evaluate:
                rows = [] if split in untold else predictions(session, split)
                bad.gather(fabric)
                if fabric.is_global_zero:
                    found[split] = model.task.figures(rows) if rows else {}
        except Interrupted as stopped:
            stopped.outcome = "nothing was written"
            raise
        fabric.barrier()  # the folder is the first process's
    if bad.seen and fabric.is_global_zero:
        print(f"{len(bad.seen)} examples could not be read, such as {next(iter(bad.seen))}", file=sys.stderr)
        if unread is not None:
            unread.extend(bad.seen)
    return found


def compare(record: dict, split: str, figures: dict[str, float]) -> None:
    for name, value in figures.items():
        recorded = (record["metrics"].get(split) or {}).get(name)
        before = "not recorded" if recorded is None else f"{recorded:.2f} recorded"
        print(f"{split} {name}: {value:.2f} now, {before}")
