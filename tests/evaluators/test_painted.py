"""Painting and judging a split: what lies beside the record, what is painted again, and what a stop leaves."""

from types import SimpleNamespace

import pytest
import tiny
import torch
from lightning_fabric import Fabric
from tiny_diffusion import batch, pictures, stable_diffusion, subject

from vltune.errors import UserError
from vltune.evaluators.evaluate import check_splits, predictions
from vltune.judges import judge as judges
from vltune.judges.judge import Judge
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.pictures import as_bytes, read_pictures
from vltune.runs.signals import Interrupted, StopRequest


class Mean(Judge):
    pictures = "hue"
    identity = "mean colour"

    def embed(self, pictures):
        return torch.nn.functional.normalize(pictures.float().mean((2, 3)), dim=-1)[:, None]


class Own:
    """Five pictures of a subject, as a reader gives them."""

    transform = SimpleNamespace(read=lambda number: as_bytes(pictures(5, seed=9))[number])

    def pictures(self):
        return 5

    def content(self, number):
        return number


class StopAfter(StopRequest):
    def __init__(self, checks):
        super().__init__()
        self.left = checks

    def check(self, fabric=None):
        self.left -= 1
        if self.left < 0:
            raise Interrupted(15)


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    monkeypatch.setattr("vltune.tasks.subject.find", lambda name: {"mean": Mean}[name])


def session(folder, stop=None, seed=0, **more):
    torch.manual_seed(seed)
    model = Model(stable_diffusion(), subject(judges={"mean": {}}, **more), LoRA(2, dropout=0.0))
    for parameter in model.method_parameters:
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(seed))
    if model.task.shown == "painted":
        shown = as_bytes(pictures(4, seed=2))
        wanted = [each for each in model.task.wanted() if each.about == "class"]
        model.task.base = {each.name: picture for each, picture in zip(wanted, shown, strict=True)}
    fabric = Fabric(accelerator="cpu", devices=1)
    return tiny.session(fabric, model, folder, stop or StopRequest(), split=lambda name: Own(), collate=None)


def files(folder):
    return {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.png")}


def test_rows_name_pictures_that_lie_beside_the_record(tmp_path):
    rows = predictions(session(tmp_path), "test")
    made, beside = files(tmp_path / "record"), [row["beside"] for row in rows]
    assert {"sheet.png", "test/subject-0003.png", "test/class-0000.png", "test/base/class-0003.png"} <= made.keys()
    assert {row["picture"] for row in rows} | {*beside} <= made.keys()
    assert {row["measure"] for row in rows} == {"hue", "drift", "prior", "diversity"}
    assert all(0 <= row["score"] <= 1 for row in rows)


def test_a_row_of_the_sheet_is_a_prompt_with_the_token_and_then_without(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr("vltune.evaluators.painted.sheet", lambda file, rows: shown.update(rows))
    predictions(session(tmp_path), "test")
    own, snow, beside = shown.values()  # two seeds of each prompt
    read = {name: read_pictures([file])[0] for name, file in files(tmp_path / "record" / "test").items()}
    assert torch.equal(torch.stack(own), as_bytes(pictures(5, seed=9)))
    for row, ids in (snow, (0, 1)), (beside, (2, 3)):
        names = [f"{about}-{id:04}.png" for about in ("subject", "class") for id in ids]
        assert torch.equal(torch.stack(row), torch.stack([read[name] for name in names]))


def test_a_stopped_evaluation_goes_on_and_gives_what_it_would_have_given(tmp_path):
    whole = predictions(session(tmp_path / "whole"), "test")
    with pytest.raises(Interrupted):
        predictions(session(tmp_path / "part", StopAfter(2)), "test")
    kept = {name: file.stat().st_mtime_ns for name, file in files(tmp_path / "part").items() if "-" in name}
    assert len([name for name in kept if "base" not in name]) == 6
    assert predictions(session(tmp_path / "part"), "test") == whole
    for name, when in kept.items():
        if "base" not in name:
            assert files(tmp_path / "part")[name].stat().st_mtime_ns == when, "painted a second time"


def test_pictures_of_another_tuned_model_are_painted_anew(tmp_path):
    predictions(session(tmp_path), "test")
    other = predictions(session(tmp_path, seed=1), "test")
    assert other == predictions(session(tmp_path / "alone", seed=1), "test")


def test_a_damaged_picture_is_painted_anew(tmp_path):
    before = predictions(session(tmp_path), "test")
    (tmp_path / "record" / "test" / "subject-0001.png").write_bytes(b"\x89PNG")
    assert predictions(session(tmp_path), "test") == before


def test_the_subjects_own_pictures_are_a_ceiling(tmp_path):
    rows = predictions(session(tmp_path, shown="real", prior_weight=0), "test")
    assert [row["id"] for row in rows] == [0, 1, 2, 3, 4]
    shown = read_pictures([tmp_path / "record" / row["picture"] for row in rows])
    assert torch.equal(shown, as_bytes(pictures(5, seed=9)))


def test_a_copied_picture_scores_with_itself_among_the_others(tmp_path):
    rows = predictions(session(tmp_path, shown="copied", prior_weight=0), "test")
    real = predictions(session(tmp_path / "real", shown="real", prior_weight=0), "test")
    assert {row["about"] for row in rows} == {"subject"} and len(rows) == 4
    assert rows[0]["score"] > real[0]["score"]


def test_a_part_of_what_is_wanted_is_refused(tmp_path):
    of = session(tmp_path)
    of.settings = of.settings.__class__(lr=1e-2, accelerator="cpu", workers=0, eval_examples=2)
    with pytest.raises(UserError, match=r"^engine\.eval_examples=2: subject ranks whole splits"):
        check_splits(of, "subject")


def test_pictures_that_are_no_numbers_are_told(tmp_path):
    of = session(tmp_path)
    torch.nn.init.constant_(of.model.method_parameters[0], torch.nan)
    with pytest.raises(UserError, match="a picture is not of numbers: the training diverged"):
        predictions(of, "test")
    assert not [*tmp_path.rglob("subject-*.png")]


def test_judges_are_named(tmp_path):
    of = session(tmp_path)
    assert of.model.task.declaration()["judges"] == {"mean": None}
    predictions(of, "test")
    assert of.model.task.declaration()["judges"] == {"mean": "mean colour"}
    assert judges.find("dino").pictures == "dino" and judges.find("clip").texts == "clip_t"


def test_training_changes_what_is_painted(tmp_path):
    of = session(tmp_path)
    before = predictions(of, "test")
    of.model.task.remember(of.model.backbone, pictures(3))
    of.model.train()
    of.model.task.loss(of.model(batch()), batch()).backward()
    with torch.no_grad():
        for parameter in of.model.method_parameters:
            parameter -= 0.5 * parameter.grad
    assert predictions(of, "test") != before
