"""Definitions of tables: each wrong one is told in one line with its file, the key and what belongs there."""

from copy import deepcopy
from dataclasses import fields

import pytest
import yaml

from vltune.errors import UserError
from vltune.results.tables import definitions
from vltune.results.tables.model import Column, ListedRows

RIGHT = {
    "tables": {"own": {"title": "Own"}},
    "experiment": "vqa-own",
    "columns": [
        {"key": "vqa", "title": "VQA, %", "value": "metrics.test.vqa_score"},
        {"key": "all", "title": "mean, %", "mean_of": ["vqa"]},
        {"key": "macs", "title": "MACs", "value": "cost.macs", "scale": 1e6},
    ],
    "figure": {"score": ["vqa"], "against": ["macs", "all"]},
}


def read(folder, **definitions_):
    for name, definition in definitions_.items():
        (folder / f"{name}.yaml").write_text(definition if isinstance(definition, str) else yaml.safe_dump(definition))
    return definitions.read(sorted(folder.glob("*.yaml")))


def test_what_is_known_of_a_column_and_of_rows_is_what_they_have():
    assert definitions._OF_COLUMN.keys() == {field.name for field in fields(Column)} - {"metric"}
    assert definitions._OF_ROWS.keys() == {field.name for field in fields(ListedRows)}


def test_those_of_this_project_are_right():
    assert "paper" in definitions.groups()


def test_a_right_one_needs_neither_notes_nor_rows(tmp_path):
    group = read(tmp_path, own=RIGHT)["own"]
    assert [column.key for column in definitions.columns_of(group)] == ["vqa", "all", "macs"]
    assert [column.experiment for column in definitions.columns_of(group)] == ["vqa-own"] * 3


def test_a_column_for_each_case_and_their_mean_may_be_named(tmp_path):
    more = deepcopy(RIGHT) | {"cases": {"cats": "Cats", "dogs": "Dogs"}}
    more["columns"][0]["experiment"] = "vqa-own_{case}"
    more["figure"]["along"] = ["cats_vqa", "dogs_vqa", "vqa"]
    group = read(tmp_path, own=more)["own"]
    assert [column.key for column in definitions.columns_of(group)][:3] == ["cats_vqa", "dogs_vqa", "vqa"]


def changed(path, value):
    """RIGHT with another value at a place, without it where that is None."""
    found = deepcopy(RIGHT)
    *within, last = path
    part = found
    for step in within:
        part = part[step]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (["figure"], None, "'figure' is missing: add it"),
        (["experiment"], None, "'experiment' is missing: add it"),
        (["note"], ["x"], "note is not known: did you mean notes? there are"),
        (["notes"], "x", "notes is x: must be a list"),
        (["tables"], ["own"], "tables is ['own']: must be a mapping"),
        (["tables", "own", "title"], None, "tables: own: 'title' is missing"),
        (["rows"], {"familly": "paper"}, "rows: familly is not known: did you mean family"),
        (["columns", 0], "vqa", "columns: is vqa: must be a mapping of key, title"),
        (["columns", 0, "publishd"], "VQA", "columns: publishd is not known: did you mean published"),
        (["columns", 0, "digits"], True, "columns: digits is True: must be a whole number"),
        (["columns", 0, "scale"], "1,000", "columns: scale is 1,000: must be a number"),
        (["columns", 0, "value"], None, "column vqa: must have one of value, mean_of, harmonic_of, ppt, and no second"),
        (["columns", 1, "value"], "x", "column all: must have one of value"),
        (["columns", 1, "mean_of"], ["macs"], "column all: column macs is not known: there are vqa"),
        (["columns", 2, "key"], "vqa", "column vqa: is there twice"),
        (["columns", 0, "experiment"], "vqa-{case}", "column vqa: its experiment is of each case"),
        (["figure", "score"], [], "figure: must have columns under score, and two under against"),
        (["figure", "against"], ["macs"], "figure: must have columns"),
        (["figure", "along"], ["vqua"], "column vqua is not known: did you mean vqa"),
        (["findings"], {"place": 1}, "findings: 'title' is missing"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, path, value, told):
    with pytest.raises(UserError) as raised:
        read(tmp_path, own=changed(path, value))
    assert str(raised.value).startswith(f"{tmp_path}/own.yaml: {told}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (RIGHT, "other.yaml: own names another table or file as well: give it its own name"),
        ({"reports": ["owm"]}, "other.yaml: table owm is not known: did you mean own"),
        ({"reports": ["own"], "notes": []}, "other.yaml: notes is not known"),
        ("tables: {own: 1, own: 2}", "other.yaml: no YAML: "),
        ("", "other.yaml: is None: must be a mapping of tables"),
    ],
)
def test_files_that_contradict_each_other_or_are_none(tmp_path, other, told):
    with pytest.raises(UserError, match=told) as raised:
        read(tmp_path, own=RIGHT, other=other)
    assert "\n" not in str(raised.value)
