"""What the comparison says: every pair of methods, told apart or not."""

import re

import presented
import pytest
from fabricated import Root
from predicted import row_of
from typer.testing import CliRunner

from vltune.cli import app
from vltune.engine.artifacts import write_predictions
from vltune.records import record as records
from vltune.results import findings
from vltune.tasks.vqa import VQA

QUESTIONS = 400  # of an image each
WRONG = {"full": range(40), "lora": range(44), "apt": range(40, 240)}  # two that hardly differ, and one that does


def fill(root, **seeds):
    """Three methods, three seeds unless told otherwise; each seed has a few mistakes of its own."""
    for method, wrong in WRONG.items():
        for seed in range(seeds.get(method, 3)):
            missed = {*wrong, 399 - seed}
            score = 100 * (1 - len(missed) / QUESTIONS)
            file = root.add(score, method=method, seed=seed, method_params=1000)
            rows = [
                row_of("test", id * 1000, "no" if id in missed else "yes", float(id not in missed))
                for id in range(QUESTIONS)
            ]
            write_predictions(file.with_suffix(".parquet"), {"test": rows}, records.read(file), VQA.columns)


def test_pairs_that_differ_are_told_apart_and_those_that_do_not_are_not(tmp_path):
    fill(Root(tmp_path))
    text = findings.written(tmp_path, presented.METHODS)
    assert "3 methods: of 3 pairs **2 are told apart, 1 are not**" in text
    assert "The highest is full; not told from it: lora." in text
    rows = dict(re.findall(r"^\| (\w+) \|.*\| (\d \| \d) \|$", text, re.MULTILINE))
    assert rows == {"full": "1 | 0", "lora": "1 | 0", "apt": "0 | 2"}
    assert text.index("| full |") < text.index("| lora |") < text.index("| apt |")
    assert re.search(r"\| lora \| low rank \| 88.75 ± 0.00 \(3\) \|", text)


def test_what_was_not_run_is_said(tmp_path):
    text = findings.written(tmp_path, presented.METHODS)
    assert text.count("no two methods have been run") == 8
    assert text.count("nothing about photographs") == 1


def test_the_command_writes_the_same_twice(tmp_path):
    fill(Root(tmp_path))
    out = tmp_path / "findings.md"
    command = ["findings", "--results-dir", str(tmp_path), "--out", str(out)]
    texts = []
    for _ in range(2):
        assert CliRunner().invoke(app, command).exit_code == 0
        texts.append(out.read_text())
    assert texts[0] == texts[1] == findings.written(tmp_path, presented.METHODS)


def test_a_table_is_of_what_is_told_where_there_are_no_predictions(tmp_path):
    root = Root(tmp_path)
    for method, score in (("full", 90.0), ("apt", 50.0)):
        root.add(score, method=method)
    text = findings.written(tmp_path, presented.METHODS)
    assert "2 methods: of 0 pairs" in text
    assert "not told from it: none. 1 could not be tested (records/vilt_mini/vqa-shapes/full-" in text


def test_pairs_that_could_not_be_tested_are_counted_and_are_not_alike(tmp_path):
    fill(root := Root(tmp_path))
    root.add(89.0, method="adapter")
    text = findings.written(tmp_path, presented.METHODS)
    assert "4 methods: of 3 pairs **2 are told apart, 1 are not**. The highest is full; not told from it: lora." in text
    place = "records/vilt_mini/vqa-shapes/adapter-0a1b2c3d-seed0.parquet"
    assert f"lora. 3 could not be tested ({place}: no predictions there).\n" in text


@pytest.mark.parametrize("by", ["params", "macs"])
def test_a_table_of_matched_sizes_has_the_methods_that_can_be_matched(tmp_path, by):
    table = presented.build(f"matched_{by}_vilt_mini", tmp_path)
    assert [row.method for row in table.rows] == [
        name for name, each in presented.METHODS.items() if f"by_{by}" in each.families
    ]
