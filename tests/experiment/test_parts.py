"""A run whose task needs a part that its backbone lacks is refused before anything is read or made."""

from pathlib import Path

import pytest
import tiny
import torch
from hydra import compose, initialize_config_dir
from test_combinations import TASKS

from vltune import experiment
from vltune.backbones import vilt as backbones
from vltune.backbones.backbone import Backbone
from vltune.command_line import resolve
from vltune.errors import UserError
from vltune.experiment.readiness import check_jobs
from vltune.model import Model
from vltune.tasks import vqa as tasks
from vltune.tuning import Method

CONF = Path(__file__).parents[2] / "conf"


class TwoTowers(backbones.Vilt):
    """What ViLT makes of each modality, and nothing of both."""

    fuse = Backbone.fuse


class Pictures(tasks.VQA):
    """Reads images alone."""

    needs = ("encode_image",)

    def __init__(self, in_width: int, answers: list, start_bias: float):
        super().__init__(in_width, in_width, answers, start_bias)

    def forward(self, backbone, batch):
        return self.head(backbone.encode_image(batch).tokens.mean(1))


@pytest.fixture
def configured(monkeypatch, tmp_path):
    """A configuration with this backbone, as composed."""
    monkeypatch.setattr(backbones, "TwoTowers", TwoTowers, raising=False)
    monkeypatch.setattr(tasks, "Pictures", Pictures, raising=False)
    places = [f"dataset.data_dir={tmp_path / 'data'}", f"results_dir={tmp_path / 'results'}", "method=classifier_only"]

    def compose_with(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("run", ["backbone._target_=vltune.backbones.vilt.TwoTowers", *places, *overrides])

    return compose_with


@pytest.mark.parametrize("mode", ["train", "cost"])
@pytest.mark.parametrize(("task", "name"), [("vqa", "VQA"), ("retrieval", "Retrieval"), ("nlvr2", "NLVR2")])
def test_it_is_refused_in_one_line_and_no_file_is_made(task, name, mode, configured, tmp_path, capsys):
    with pytest.raises(SystemExit):
        experiment.run(configured(f"task={task}", f"mode={mode}"), [])
    said = f"error: TwoTowers has no fuse, which {name} needs; choose another backbone or task\n"
    assert capsys.readouterr().err == said
    assert not [*tmp_path.iterdir()]


def test_so_is_pretraining(configured, tmp_path, capsys):
    with pytest.raises(SystemExit):
        experiment.run(configured("mode=pretrain", "task=pretraining", "method=full"), [])
    assert "TwoTowers has no fuse, which Pretraining needs" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_sweep_is_refused_before_any_of_its_runs(configured, tmp_path):
    jobs = [["task=vqa"], ["task=nlvr2"]]
    with pytest.raises(UserError, match="has no fuse, which VQA needs"):
        check_jobs(jobs, [resolve(configured(*job)) for job in jobs])
    assert not [*tmp_path.iterdir()]


def test_a_task_that_needs_less_is_run(configured, tmp_path):
    experiment.run(
        configured("mode=cost", "task=vqa", "task._target_=vltune.tasks.vqa.Pictures"), ["task._target_=Pictures"]
    )
    assert [*tmp_path.rglob("*.json")]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_says_what_it_calls(task):
    backbone, called = tiny.vilt(), set()

    def noted(part):
        inside = getattr(backbone, part)
        return lambda *inputs: called.add(part) or inside(*inputs)

    for part in {*Backbone.parts} - {"forward"}:
        setattr(backbone, part, noted(part))
    made = TASKS[task](backbone.pooled_width, backbone.width)
    with torch.no_grad():
        made(backbone, tiny.batch())
    assert called == {*made.needs}


def test_a_model_built_by_hand_is_refused_alike():
    sizes = {"width": 32, "layers": 1, "heads": 2, "hidden": 32, "patch_size": 16, "image_size": 32}
    with pytest.raises(UserError, match="has no fuse, which VQA needs"):
        Model(TwoTowers(**sizes), tasks.VQA(32, 32, ["a"]), Method())
