"""One damaged, foreign, future or odd file among good ones: nothing ends in a traceback, it is used or named, and what the
others say stays what it was."""

import json
import math
import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from fabricated import Root, fabricate
from hypothesis import given
from hypothesis import strategies as st
from odd_values import fuzzed, hostile, leaves, mutated, ways
from predicted import SCHEMA
from pyarrow import parquet
from rich.console import Console
from typer.testing import CliRunner

from vltune.cli import app
from vltune.errors import UserError
from vltune.records import folders, store
from vltune.records import record as records
from vltune.records.merge import OUTCOMES, merge
from vltune.results import PAGE, report
from vltune.results.compare import text as compare_text
from vltune.results.compare.match import compare, failures
from vltune.results.submission import answers
from vltune.sweep import choose

FORMATS = ("md", "tex", "csv", PAGE)
ODD = "apt"
CONFIG = {
    "backbone": {"name": "vilt_mini", "width": 64},
    "task": {"name": "vqa", "_target_": "vltune.tasks.vqa.VQA"},
    "dataset": {
        "name": "shapes",
        "data_dir": "nowhere",
        "subfolder": "vqav2",
        "train": ["a"],
        "val": ["b"],
        "test": ["c"],
        "images": "true",
        "train_fraction": 1.0,
        "generate": {"layout": "vqav2", "seed": 0},
    },
    "engine": {
        "lr": 1e-3,
        "epochs": 10,
        "select": "last",
        "evaluate": ["val", "test"],
        "eval_examples": None,
        "threads": 1,
        "betas": [0.9, 0.98],
    },
    "seed": 0,
    "results_dir": "results",
}


def rows(right, way="red"):
    return [(split, 1000 * i, way, score) for split in ("val", "test") for i, score in enumerate(right)]


def run(root, method, right, seed=0, **fields):
    score = 100 * math.fsum(right) / len(right)
    hardware = {"cpu": "a", "cores": 2, "gpus": ["b"], "memory_bytes": 2**33, "platform": "Linux"}
    provenance = fabricate()["provenance"] | {
        "hardware": hardware,
        "phases": {"train": 3.0},
        "job": None,
        "dirty": True,
    }
    file = root.add(
        method=method,
        seed=seed,
        config=CONFIG | {"method": {"name": method, "rank": 4, "roles": ["query"]}},
        metrics={split: {"vqa_score": score} for split in ("val", "test")},
        history=[{"step": step, "train/loss": 1 / step, "train/lr": None} for step in (1, 2, 3)],
        train_step_ms={"median": 2.0, "p95": 3.0},
        latency_ms={"median": 1.0, "p95": 1.0},
        throughput_per_s=100.0,
        macs=1000,
        additional_macs_as_published=5,
        sweep="mini",
        bad_examples=["x.jpg"],
        provenance=provenance,
        **fields,
    )
    write(file, pa.table(dict(zip(SCHEMA.names, zip(*rows(right), strict=True), strict=True)), schema=SCHEMA))
    return file


def write(file, table):
    parquet.write_table(table, file.with_suffix(".parquet"))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """What a folder of results says without the odd file."""
    root = Root(tmp_path_factory.mktemp("good"))
    for seed in (0, 1):
        run(root, "lora", [1.0, 0.6, 0.0, 0.9, 1.0, 0.3], seed)
        run(root, "full", [1.0, 0.0, 0.0, 0.9, 0.3, 0.3], seed)
    root.fail(method="adapter")
    root.add(
        kind="costs", method="lora", metrics={"val": None, "test": None}, config=CONFIG | {"method": {"name": "lora"}}
    )
    searched = {"val": {"vqa_score": 50.0}, "test": None}
    Root(root.folder / "learning_rates").add(method="lora", config={"engine": {"lr": 1e-3}}, metrics=searched)
    return root


@pytest.fixture(scope="module")
def said(good):
    return shown(report("vilt_mini", good.folder, good.folder / "out", FORMATS)[0])


def shown(table):
    """The numbers of the untouched rows; marks depend on what they are tested against."""
    return {
        row.label: {key: (cell.mean, cell.std, cell.n, cell.interval) for key, cell in row.cells.items()}
        for row in table.rows
        if row.method in ("lora", "full", "adapter", "classifier_only")
    }


def check(place, good, said):
    """Every command on the folder of `place`, whose file may be anything."""
    root, out = place.parents[3], place.parents[4]
    told = []
    loaded = [record["path"] for record in store.load(root, told.append)]
    odd = place.relative_to(root).as_posix()
    untouched = {record["path"] for record in store.load(good.folder, pytest.fail)}
    assert {*loaded} - {odd} == untouched
    assert odd in loaded or any(place.stem in str(error) for error in told), "passed over in silence"

    (table,) = report("vilt_mini", root, out / "report", FORMATS)
    assert shown(table) == said
    assert any(run["path"] == odd for run in table.records) or any(place.stem in line for line in table.broken)
    assert any(place.stem in line for line in table.broken) == bool(told)

    for other in (good.folder, root):
        found = compare(root, other)
        for form in compare_text.TEXT.values():
            form(found).encode()
        with (out / "terminal").open("w", encoding="utf-8") as terminal:
            Console(file=terminal, width=100).print(compare_text.terminal(found))
        failures(found, 0.0)
        others = [row for row in found.rows if row.method in ("full", "lora") and row.scores]
        assert [row.method for row in others] == ["full", "lora"]
        assert all(score.difference == 0 for row in others for score in row.scores.values())
        assert all(row.predictions.identical and len(row.finished) == 2 for row in others)

    planned = outcomes(root, out / "into", dry_run=True)
    assert outcomes(root, out / "into") == planned
    assert {record["path"] for record in store.load(out / "into", pytest.fail)} >= untouched

    done = CliRunner().invoke(app, ["wandb-sync", "--results-dir", str(root), "--dry-run", "--mode", "offline"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert place.stem in done.output or odd in loaded  # a run that did not finish is not sent

    for attempt in (
        lambda: choose.write(root, out / "rates"),
        lambda: answers(place, "val"),
        lambda: folders.find(place.parent, told.append),
    ):
        with suppress(UserError):
            attempt()


def outcomes(source, into, **options):
    """How many files of each outcome, all of them named."""
    merged = merge([source], into, **options)[source]
    assert all(file.what for file in merged)
    return {outcome: sum(file.outcome == outcome for file in merged) for outcome in OUTCOMES}


@given(data=st.data())
@fuzzed
def test_a_record_with_odd_values(data, good, said, tmp_path_factory):
    place = fresh(good, tmp_path_factory)
    record = json.loads(place.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        paths = leaves(record)
        if paths:
            mutated(record, data.draw(st.sampled_from(paths)), data.draw(ways), data.draw(hostile))
    place.write_text(json.dumps(record))
    if data.draw(st.booleans()):
        place.with_suffix(".parquet").unlink()
    check(place, good, said)


foreign = st.recursive(
    hostile,
    lambda inner: (
        st.dictionaries(st.sampled_from([*fabricate(), "a"]), inner, max_size=4) | st.lists(inner, max_size=2)
    ),
    max_leaves=8,
)


@given(data=st.data())
@fuzzed
def test_a_damaged_or_foreign_file(data, good, said, tmp_path_factory):
    place = fresh(good, tmp_path_factory)
    whole = place.read_bytes()
    kind = data.draw(
        st.sampled_from(["flipped", "cut", "cut out", "twice", "bytes", "json", "schema", "head", "empty"])
    )
    at = data.draw(st.integers(0, len(whole) - 1))
    if kind == "flipped":
        damaged = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 20))):
            damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        whole = bytes(damaged)
    elif kind == "cut":
        whole = whole[:at]
    elif kind == "cut out":
        whole = whole[:at] + whole[at + data.draw(st.integers(1, 200)) :]
    elif kind == "twice":
        whole += whole
    elif kind == "bytes":
        whole = data.draw(st.binary(max_size=200))
    elif kind == "json":
        whole = json.dumps(data.draw(foreign)).encode()
    elif kind == "schema":
        version = data.draw(st.one_of(hostile, st.integers(-3, 5)))
        whole = json.dumps(json.loads(whole) | {"schema": version}).encode()
    elif kind == "head":
        heads = [
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"\x1f\x8b",
            b"PK\x03\x04",
            b"version https://git-lfs",
            b"<html>",
            b"\0" * 9,
        ]
        whole = data.draw(st.sampled_from(heads)) + whole
    else:
        whole = b""
    place.write_bytes(whole)
    check(place, good, said)


numbers = st.sampled_from([math.nan, math.inf, -1.0, 0.0, 0.3, 0.5, 1.0, 1.0001, 1e30, None])
ids = st.sampled_from([0, 1, 1000, 2000, -1, 2**40, 2**63 - 1, -(2**63), None])
texts = st.sampled_from(["red", "", "image 1", "caption 2", "image 1, fold 1", "caption x", "image", "\x00", "é", None])
splits = st.sampled_from(["val", "test", "train", "", None])
TYPES = (
    *(pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.int64())),
    *(pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(20, 3)),
    *(pa.bool_(), pa.null(), pa.timestamp("s"), pa.date32()),
)


@given(data=st.data())
@fuzzed
def test_odd_predictions(data, good, said, tmp_path_factory):
    place = fresh(good, tmp_path_factory)
    file = place.with_suffix(".parquet")
    table = parquet.read_table(file)
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(
            st.sampled_from(["value", "value", "value", "type", "drop", "rows", "order", "owner", "double"])
        )
        name = data.draw(st.sampled_from(SCHEMA.names))
        if way == "value" and table.num_rows and table.column_names.count(name) == 1:
            values = table[name].to_pylist()
            pool = {"split": splits, "id": ids, "prediction": texts, "score": numbers}[name]
            values[data.draw(st.integers(0, len(values) - 1))] = data.draw(pool)
            table = swapped(table, name, values, table[name].type)
        elif way == "type" and table.column_names.count(name) == 1:
            table = swapped(table, name, table[name].to_pylist(), data.draw(st.sampled_from(TYPES)))
        elif way == "drop" and table.column_names.count(name) == 1:
            table = table.drop_columns([name])
        elif way == "rows":
            table = data.draw(st.sampled_from([table.slice(0, 0), table.slice(1), pa.concat_tables([table, table])]))
        elif way == "order" and table.num_rows:
            table = table.take(list(range(table.num_rows))[::-1])
        elif way == "owner":
            keys = st.sampled_from(["method", "seed", "hash", "vltune", "run"])
            table = table.replace_schema_metadata(
                {data.draw(keys): data.draw(st.sampled_from(["apt", "7", "", b"\xff"]))}
            )
        elif way == "double" and table.column_names.count(name) == 1:
            table = table.append_column(name, table[name])
    write(place, table)
    if data.draw(st.integers(0, 3)) == 0:
        damaged = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 10))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        file.write_bytes(bytes(damaged)[: data.draw(st.sampled_from([None, len(damaged) // 2, 8]))])
    if data.draw(st.integers(0, 3)) == 0:
        record = json.loads(place.read_text())
        record["metrics"]["test"] = data.draw(
            st.sampled_from([None, {}, {"ir_r1": 50.0}, {"r1": 1.0, "tr_r1_1k": 2.0}])
        )
        place.write_text(json.dumps(record))
    check(place, good, said)


def swapped(table, name, values, kind):
    """The table with another column; as it was, where Arrow has none such."""
    try:
        column = pa.array(values, pa.string()).cast(kind) if pa.types.is_dictionary(kind) else pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return table
    return table.set_column(table.column_names.index(name), name, column)


def fresh(good, tmp_path_factory) -> Path:
    """A copy of the good folder with the odd one's place in it."""
    folder = tmp_path_factory.mktemp("odd") / "results"
    shutil.copytree(good.folder, folder, ignore=shutil.ignore_patterns("out"))
    return run(Root(folder), ODD, [1.0, 1.0, 0.0, 0.9, 1.0, 1.0])


@given(data=st.data())
@fuzzed
def test_an_odd_run_among_those_that_a_rate_is_chosen_from(data, tmp_path_factory):
    root = Root(tmp_path_factory.mktemp("search"))
    for rate, score in ((1e-3, 50.0), (1e-2, 60.0)):
        for method in ("lora", ODD):
            config, metrics = {"engine": {"lr": rate}}, {"val": {"vqa_score": score}, "test": None}
            file = root.add(method=method, hash=f"{int(1e4 * rate):08x}", config=config, metrics=metrics)
    (made,) = choose.write(root.folder, root.folder / "rates")
    before = made.read_text()
    record = json.loads(file.read_text())
    mutated(record, data.draw(st.sampled_from(leaves(record))), data.draw(ways), data.draw(hostile))
    file.write_text(json.dumps(record))
    try:
        choose.write(root.folder, root.folder / "rates")
    except UserError:
        assert made.read_text() == before
    else:
        (line,) = (line for line in made.read_text().splitlines() if line.startswith("lora"))
        assert line in before


def test_without_an_odd_value_all_are_used(good, said, tmp_path_factory):
    place = fresh(good, tmp_path_factory)
    assert len(store.load(place.parents[3], pytest.fail)) == 7
    records.read(place)
    check(place, good, said)
