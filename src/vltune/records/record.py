"""One run is one JSON file.  `record.schema.json` says what it holds; docs/results.md explains every field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from vltune import signatures, streamed
from vltune.atomic import replacing
from vltune.errors import UserError
from vltune.metrics.metric import PERCENT, declared
from vltune.records import files
from vltune.records.packed import PACK
from vltune.values import printable

if TYPE_CHECKING:
    from typing import Required  # Python 3.11

Kind = Literal["records", "costs"]

_HERE = Path(__file__).parent
SCHEMA: dict = json.loads((_HERE / "record.schema.json").read_text())
VERSION: int = SCHEMA["properties"]["schema"]["const"]
COST: tuple[str, ...] = tuple(SCHEMA["properties"]["cost"]["required"])
"""The fields of `cost`, all required: `dict.fromkeys(COST)` is the cost of a run that measured none."""
USED = ("train_step_ms", "latency_ms", "throughput_per_s", "peak_memory_bytes")
"""Of these, what a machine decides; all others a configuration does, the same for every seed everywhere (`is_counted`);
but for a method that searches what to leave out of two streams, whose MACs differ."""
DEEPEST = 100
"""Levels of a JSON file; more could not be walked through."""
LARGEST = 1e300
"""Of its numbers: sums of some must still be numbers."""

Status = Literal["finished", "failed", "interrupted", "running"]


class Identity(TypedDict):
    """Together the path of a record."""

    backbone: str
    method: str
    task: str
    dataset: str
    seed: int
    hash: str


class Record(TypedDict, total=False):
    """A record as `read` gives it.  docs/results.md: every field."""

    schema: Required[int]
    id: Required[str]
    status: Required[Status]
    identity: Required[Identity]
    config: Required[dict[str, Any]]
    fingerprints: dict[str, Any] | None
    metrics: Required[dict[str, dict[str, float] | None]]
    """{`val` or `test`: {name: figure}}"""
    scores: list[dict[str, Any]]
    """What each metric is (`vltune.metrics.metric.declared`)."""
    submission: str
    cost: Required[dict[str, Any]]
    provenance: Required[dict[str, Any]]
    error: Required[str | None]
    history: list[dict[str, float | None]]
    sweep: str | None
    bad_examples: list[str]
    warnings: list[str]
    """Of its training, such as one that failed to start."""
    selected: dict[str, Any] | None
    """Of the steps that were trained, which was kept, and by what."""
    out_of_memory: list[dict[str, int]]
    """Where memory ran out: the step, and the examples at a time from there on."""
    judges: dict[str, str | None]
    """Of generated pictures: which model each judge was; null for one that was not there."""
    few_shot: dict[str, Any]
    """Which images a run of few shots was trained on: protocol, shots, seed, ids and a hash of their names."""


_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a character, which alone is none


def path(root: Path, identity: dict, kind: Kind = "records") -> Path:
    """Where the record of this identity lies.  `costs` (`mode=cost`) have no seed: they measure, and train nothing."""
    seed = f"-seed{identity['seed']}" if kind == "records" else ""
    folder = Path(root) / kind / identity["backbone"] / f"{identity['task']}-{identity['dataset']}"
    return folder / f"{identity['method']}-{identity['hash']}{seed}.json"


def run_folder(root: Path, place: Path | str) -> Path:
    """Where a run keeps its lock, checkpoints and logs; `place`: of its record, below `root`."""
    return Path(root) / "runs" / Path(*Path(place).parts[1:]).with_suffix("")


def write(record: Record, root: Path, kind: Kind = "records") -> Path:
    """Validates `record` and writes it under `root`, whole or not at all; returns its path.

    Raises UserError where a field breaks the schema or is not finite, and where the folder cannot be written.
    """
    source = f"record {record.get('id')!r}"
    for field, value in flatten(record).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{source}: field '{field}' is {value}, which JSON cannot hold: write null, or fix the run")
    try:
        _check_plain(record)
        written = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: it is not plain JSON ({error}): resolve the config first") from error
    _check(record, source)
    return save(path(root, record["identity"], kind), written + b"\n")


def read(file: Path, instead: str = files.AWAY) -> Record:
    """The validated record in `file`.  Raises UserError that names the file and the field.

    instead: what to do about a folder in its place"""
    record = read_json(file, instead)
    _check(record, str(file))
    return record


def read_json(file: Path, instead: str = files.AWAY) -> Any:
    """The content of a JSON file that holds nothing but JSON: no NaN or infinity, no key twice, no half of a character.

    Raises UserError that names the file, and what it is instead."""
    return _parsed(files.content(file, "JSON", instead), str(file))


def loads(text: str, source: str) -> Record:
    """The validated record that a text holds.  source: what the text is called in an error."""
    record = _parsed(text.encode(), source)
    _check(record, source)
    return record


def _parsed(content: bytes, source: str) -> Any:
    try:
        text = content.decode("utf-8-sig")
        found = json.loads(text, parse_constant=_refuse, object_pairs_hook=streamed.once)
        _check_plain(found)
        if _HALF.search(text):
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: {_no_json(content, error)}") from None
    return found


def _no_json(content: bytes, error: ValueError | RecursionError) -> str:
    found = signatures.identify(content[: signatures.HEAD])
    if content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return f"broken JSON ({error}): restore the file or run again"
    return f"{found.name}, no JSON: {found.fix or 'restore the file or run again'}"


def save(file: Path, data: bytes) -> Path:
    """Writes `data` to `file`, whole or not at all.  Raises UserError where that cannot be done."""
    with replacing(file) as temporary:
        temporary.write_bytes(data)
    return file


def check_out(file: Path, sources: Iterable[Path] = ()) -> None:
    """Raises UserError where what a person wants written to `file` would take the place of a record, of what lies beside
    one, or of one of the files that it is made of."""
    if any(files.is_same(file, source) for source in sources):
        raise UserError(f"{file}: is one of the files that are read: name another to write")
    if files.is_file(file) and (file.name == PACK or _is_record(file.with_suffix(".json"))):
        raise UserError(f"{file}: is a record, or lies beside one: name another file to write")


def _is_record(file: Path) -> bool:
    try:
        found = read_json(file)
    except UserError:
        return False
    return isinstance(found, dict) and "identity" in found


def last_line(record: Record) -> str:
    """Of its traceback, as a terminal can show it; nothing where it has none."""
    lines = (record.get("error") or "").strip().splitlines()
    return printable(lines[-1].strip()) if lines else ""


def is_counted(cost: str) -> bool:
    """Whether a configuration decides it.  cost: the dotted key of a field of `cost`."""
    return cost.partition(".")[0] not in USED


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as {dotted key: leaf}; an empty dict or list is a leaf."""
    if not isinstance(tree, dict | list | tuple) or not tree:
        return {prefix: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    flat = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def started(record: Record) -> datetime:
    """When the run began, in UTC.  Raises ValueError where the field is no time."""
    text = record["provenance"]["started"]
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not read the Z of UTC
        return found.astimezone(timezone.utc) if found.tzinfo else found.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check_plain(tree: Any, depth: int = 1) -> None:
    """Raises RecursionError where it is too deep, and ValueError where a number is too large (1e999 is an infinity)."""
    if depth > DEEPEST:
        raise RecursionError(f"nested more than {DEEPEST} levels deep")
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else [tree]:
        kind = type(value)  # half as long as isinstance, over all values of a thousand records
        if kind is dict or kind is list:
            _check_plain(value, depth + 1)
        elif (kind is float or kind is int) and not -LARGEST < value < LARGEST:
            raise ValueError("a number is too large")


@cache
def _validator() -> Any:
    from jsonschema_rs import Draft202012Validator

    return Draft202012Validator(SCHEMA)


def _check(record: Any, source: str) -> None:
    version = record.get("schema", VERSION) if isinstance(record, dict) else VERSION
    if not _is_whole(version) or version != VERSION:
        told = shorten(json.dumps(version), 60)
        raise UserError(
            f"{source}: field 'schema' is {told}, this vltune reads {VERSION}: use the vltune that wrote it"
        )
    if error := min(_validator().iter_errors(record), key=lambda error: len(error.instance_path), default=None):
        field = ".".join(map(str, error.instance_path)) or "(top level)"
        raise UserError(f"{source}: field '{field}': {shorten(error.message, 160)}")
    _check_metrics(record, source)
    try:
        started(record)
    except ValueError as error:
        raise UserError(f"{source}: field 'provenance.started': {error}: correct it") from None
    # To the schema 1.0 is a whole number as well, and would be another file's name, or none of W&B's steps.
    whole = {"identity.seed": record["identity"]["seed"]}
    whole |= {f"history.{place}.step": point["step"] for place, point in enumerate(record.get("history", ()))}
    if odd := next((field for field, value in whole.items() if not _is_whole(value)), None):
        raise UserError(f"{source}: field '{odd}': {whole[odd]} is written as a fraction: write it without its point")


def _check_metrics(record: dict, source: str) -> None:
    """Raises UserError where a metric is declared twice or as the mean of what is not, and where one in percent, as all
    are that are not declared, is not from 0 to 100."""
    metrics = declared(record)
    if len(metrics) < len(record.get("scores", ())):
        raise UserError(f"{source}: field 'scores': a metric stands there twice")
    for metric in metrics.values():
        if lacking := [part for part in metric.made_of if part not in metrics or metrics[part].made_of]:
            raise UserError(
                f"{source}: field 'scores': {metric.name} is the mean of {lacking[0]}, which is not declared"
            )
    for split in ("val", "test"):
        for name, value in (record["metrics"][split] or {}).items():
            if (name not in metrics or metrics[name].unit == PERCENT) and not 0 <= value <= 100:
                edge = "less than the minimum of 0" if value < 0 else "greater than the maximum of 100"
                raise UserError(f"{source}: field 'metrics.{split}.{name}': {value} is {edge}")


def _is_whole(value: Any) -> bool:
    return type(value) is int
