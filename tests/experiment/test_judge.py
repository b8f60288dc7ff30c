"""`vltune judge` with one judge after the other: what one said stays when the other is asked."""

import json
from types import SimpleNamespace

import pytest
from fabricated import fabricate
from PIL import Image

from vltune.errors import UserError
from vltune.evaluators import painted
from vltune.experiment import judge as judging
from vltune.records import record as records
from vltune.tasks.subject import Subject

SCORES = {"dino": {"dino": 0.8, "drift": 0.1, "prior": 0.3}, "clip": {"clip_i": 0.7, "clip_t": 0.2}}
ABOUT = {"drift": "class", "prior": "class"}


def rows(here, beside=None):
    return [
        {
            "id": 0,
            "prediction": "a sks dog",
            "score": score if name in here else None,
            "measure": measure,
            "about": ABOUT.get(measure, "subject"),
            "seed": 0,
            "picture": "test/subject-0000.png",
            "beside": beside,
        }
        for name, of in SCORES.items()
        for measure, score in of.items()
    ]


def record(folder, judges):
    """Of a picture that such judges are asked about; its file."""
    task = {"name": "subject", "_target_": "vltune.tasks.subject.Subject", "seeds": [0], "judges": judges}
    made = fabricate(task="subject", config={"task": task, "engine": {"evaluate": ["test"]}})
    made["metrics"] = {"val": None, "test": None}
    file = records.write(made, folder)
    paint(file, "test/subject-0000.png")
    return file


def paint(file, name):
    picture = file.with_suffix("") / name
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(picture)


@pytest.fixture
def stand_ins(monkeypatch):
    """Judges of which nothing is read."""

    def judges_here(self):
        here = {name: object() for name, given in self.judges.items() if given["folder"]}
        self.identities = dict.fromkeys(self.judges) | {name: f"{name} of a folder" for name in here}
        return here

    monkeypatch.setattr(Subject, "judges_here", judges_here)
    monkeypatch.setattr(painted, "judge", lambda folder, task, wanted, judges: rows(judges))
    monkeypatch.setattr(judging, "wanted", lambda file, record, split: [])


@pytest.mark.parametrize("order", [("dino", "clip"), ("clip", "dino")])
def test_what_an_absent_judge_said_before_stays(order, tmp_path, stand_ins):
    file = record(tmp_path, {name: {"folder": None} for name in SCORES})
    for name in order:
        judging.judge(file, {name: "folder"})
    written = json.loads(file.read_text())
    found = written["metrics"]["test"]
    expected = {measure: score for of in SCORES.values() for measure, score in of.items()}
    assert {measure: found[measure] for measure in expected} == pytest.approx(expected)
    assert written["judges"] == {name: f"{name} of a folder" for name in SCORES}


def test_a_recorded_folder_of_another_machine_s_keeps_no_judge_that_is_here_from_judging(tmp_path, stand_ins):
    file = record(tmp_path, {name: {"folder": f"/of/a/cluster/{name}"} for name in SCORES})
    judging.judge(file, {"clip": str(tmp_path)})
    written = json.loads(file.read_text())
    assert written["judges"] == {"dino": None, "clip": "clip of a folder"}
    assert written["config"]["task"]["judges"]["dino"] == {"folder": "/of/a/cluster/dino"}
    with pytest.raises(UserError, match=r"no judge is here; name a folder, --folder dino=DIR"):
        judging.judge(file, {})


@pytest.mark.parametrize("folder", ["base", "real"])
def test_what_pictures_are_compared_with_must_be_there_as_they_must(folder, tmp_path, monkeypatch):
    """Else figures vanish from the record."""
    file = record(tmp_path, {"dino": {"folder": None}})
    beside = f"test/{folder}/0000.png"
    table = SimpleNamespace(to_pylist=lambda: [row | {"split": "test"} for row in rows(SCORES, beside)])
    monkeypatch.setattr(judging.predictions, "are_there", lambda file, record: True)
    monkeypatch.setattr(judging.predictions, "whole", lambda file, record: table)
    told = rf"{beside}: is not there; copy the folder beside the record, or run its command again$"
    with pytest.raises(UserError, match=told):
        judging.wanted(file, records.read(file), "test")
    paint(file, beside)
    assert len(judging.wanted(file, records.read(file), "test")) == len({row["about"] for row in rows(SCORES)})


def test_a_folder_of_records_is_told_to_be_none(tmp_path):
    with pytest.raises(UserError, match="is a folder, no JSON: give a record in it"):
        judging.judge(tmp_path, {})
