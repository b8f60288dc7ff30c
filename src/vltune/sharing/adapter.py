"""One safetensors file with what a run tuned and, in its metadata, the run's record: `mode=eval from=FILE` needs no other.

Metadata: `vltune`, the version that wrote it; `form`, its own version; `record`, JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vltune import __version__
from vltune.errors import UserError
from vltune.records import record as records
from vltune.records.files import NAMED, content
from vltune.records.folders import TUNED
from vltune.records.record import Record
from vltune.signatures import HEAD

if TYPE_CHECKING:
    from torch import Tensor

FORM = "1"
LEFT_OUT = ("history",)
"""Of a record: what is large and says nothing of the tuned model."""


def record_of(file: Path) -> Record:
    """The record that a file is, or holds.  UserError in one line where it is neither."""
    from vltune.weights.forms import is_safetensors

    if not file.is_file():
        return records.read(file, instead=NAMED)  # which says that it is none
    with file.open("rb") as opened:
        head = opened.read(HEAD)
    return held(file) if is_safetensors(head) else records.read(file)


def held(file: Path) -> Record:
    """The record in an adapter file's metadata."""
    found = metadata(file)
    if "form" not in found:
        beside = file.with_suffix(".json")
        fix = f"give {beside}" if beside.is_file() else "vltune export RECORD makes a file that has one"
        raise UserError(f"{file}: holds tensors and no record of a run; {fix}")
    if found["form"] != FORM:
        raise UserError(
            f"{file}: an adapter file of version {found['form']}, written by vltune {found.get('vltune', '?')}; "
            f"this vltune, {__version__}, reads version {FORM}"
        )
    return records.loads(found.get("record", ""), f"{file}: the record in it")


def metadata(file: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        told = str(error).splitlines()[0]
        raise UserError(f"{file}: not a whole safetensors file ({told}); copy or download it again") from None


def check_tuned(record: Record, file: Path) -> None:
    """UserError where a record has no tuned model."""
    mode = record["config"].get("mode")
    if mode == "cost":
        raise UserError(f"{file}: is of mode=cost, which tunes nothing; give the record of a run that was trained")
    if mode == "pretrain":
        weights = file.with_suffix(TUNED)
        raise UserError(f"{file}: is of mode=pretrain, which leaves a backbone: tune that, weights={weights}")
    if record["status"] != "finished":
        raise UserError(f"{file}: the run is {record['status']}; only a finished one has a tuned model")


def check_parts(record: Record, file: object, *names: str) -> None:
    """UserError where a record's configuration lacks what a model is built of."""
    for name in names or ("backbone", "task", "method", "weights"):
        if name not in record["config"]:
            raise UserError(
                f"{file}: field 'config.{name}': is missing, so that nothing can be built of it; give another"
            )


def tuned(file: Path) -> tuple[Record, dict[str, Tensor]]:
    """A finished run's record, and what it tuned.  file: the record, or an adapter file."""
    from vltune.weights.files import read_safetensors

    record = record_of(file)
    check_tuned(record, file)
    tensors = file.with_suffix(TUNED)
    if not tensors.is_file():
        raise UserError(
            f"{tensors}: the tuned parameters of this record are not here; run its command again to make them"
        )
    return record, read_safetensors(tensors)


def write(record: Record, state: dict[str, Tensor], file: Path) -> None:
    from vltune.engine.artifacts import write_tensors

    kept = {key: value for key, value in record.items() if key not in LEFT_OUT}
    text = json.dumps(kept, ensure_ascii=False, allow_nan=False)
    write_tensors(file, state, {"format": "pt", "vltune": __version__, "form": FORM, "record": text})


def described(file: Path) -> list[tuple[str, str]]:
    """(what, its value) by line, for a person."""
    record, state = tuned(file)
    identity, prints, cost = record["identity"], record.get("fingerprints") or {}, record["cost"]
    trained = ", ".join(f"{kind} {cost[f'{kind}_params']:,}" for kind in ("method", "task", "total"))
    lines = [
        ("file", f"{file}, {len(content(file, 'an adapter')) / 1e6:,.2f} MB, {len(state)} tensors"),
        ("run", record["id"]),
        *((part, identity[part]) for part in ("method", "backbone", "task", "dataset")),
        ("parameters", trained),
        *((f"for {part} weights", f"sha256 {found}") for part, found in (prints.get("weights") or {}).items()),
        *((f"with {part}", f"sha256 {found}") for part, found in (prints.get("tokenizer") or {}).items()),
    ]
    for split, figures in record["metrics"].items():
        lines += [(f"{split} {name}", f"{value:.2f}") for name, value in (figures or {}).items()]
    if trial := record["config"].get("engine", {}).get("eval_examples"):
        lines.append(("scored", f"the first {trial} examples of each split: a trial"))
    made = record["provenance"]
    return [*lines, ("commit", str(made["commit"])), ("written by", f"vltune {made['packages'].get('vltune', '?')}")]
