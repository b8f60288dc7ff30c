"""`vltune judge` with one judge after the other: what one said stays when the other is asked."""

import json

import pytest
from fabricated import fabricate
from PIL import Image

from vltune.evaluators import painted
from vltune.experiment import judge as judging
from vltune.records import record as records
from vltune.tasks.subject import Subject

SCORES = {"dino": {"dino": 0.8, "drift": 0.1, "prior": 0.3}, "clip": {"clip_i": 0.7, "clip_t": 0.2}}
ABOUT = {"drift": "class", "prior": "class"}


def rows(here):
    return [
        {
            "id": 0,
            "prediction": "a sks dog",
            "score": score if name in here else None,
            "measure": measure,
            "about": ABOUT.get(measure, "subject"),
            "seed": 0,
            "picture": "test/subject-0000.png",
            "beside": None,
        }
        for name, of in SCORES.items()
        for measure, score in of.items()
    ]


@pytest.mark.parametrize("order", [("dino", "clip"), ("clip", "dino")])
def test_what_an_absent_judge_said_before_stays(order, tmp_path, monkeypatch):
    def judges_here(self):
        here = {name: object() for name, given in self.judges.items() if given["folder"]}
        self.identities = dict.fromkeys(self.judges) | {name: f"{name} of a folder" for name in here}
        return here

    monkeypatch.setattr(Subject, "judges_here", judges_here)
    monkeypatch.setattr(painted, "judge", lambda folder, task, wanted, judges: rows(judges))
    monkeypatch.setattr(judging, "wanted", lambda file, record, split: [])
    judges = {name: {"folder": None} for name in SCORES}
    task = {"name": "subject", "_target_": "vltune.tasks.subject.Subject", "seeds": [0], "judges": judges}
    made = fabricate(task="subject", config={"task": task, "engine": {"evaluate": ["test"]}})
    made["metrics"] = {"val": None, "test": None}
    file = records.write(made, tmp_path)
    file.with_suffix("").joinpath("test").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(file.with_suffix("") / "test" / "subject-0000.png")
    for name in order:
        judging.judge(file, {name: "folder"})
    record = json.loads(file.read_text())
    found = record["metrics"]["test"]
    expected = {measure: score for of in SCORES.values() for measure, score in of.items()}
    assert {measure: found[measure] for measure in expected} == pytest.approx(expected)
    assert record["judges"] == {name: f"{name} of a folder" for name in SCORES}
