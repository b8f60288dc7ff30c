"""What the untuned backbone paints is painted once."""

from contextlib import contextmanager
from copy import deepcopy
from types import SimpleNamespace

import pytest
import tiny
import tiny_diffusion
import torch
from lightning_fabric import Fabric
from torch import nn

from vltune.engine.precision import hold
from vltune.errors import UserError
from vltune.experiment.setup import make_fabric
from vltune.experiment.train import fill
from vltune.features.cache import digest
from vltune.features.recalled import recall
from vltune.judges.wanted import CLASS, SUBJECT, Wanted
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.pictures import as_bytes
from vltune.runs.signals import StopRequest
from vltune.settings.engine import Settings
from vltune.tasks.subject import CLASS_SEED


class Painting:
    """A task of which the pictures follow from prompt, seed and weights alone."""

    sampler_steps, guidance, shown = 5, 2.0, "painted"

    def __init__(self, class_pictures, prompts=("a dog", "a wet dog"), seeds=(0, 1)):
        self.class_pictures, self.prompts, self.seeds = class_pictures, prompts, seeds
        self.asked, self.remembered, self.base = [], None, {}

    def of_class(self):
        return [Wanted(i, CLASS, "a photo of a dog", CLASS_SEED + i) for i in range(self.class_pictures)]

    def wanted(self):
        about = [(about, text, seed) for about in (SUBJECT, CLASS) for text in self.prompts for seed in self.seeds]
        return [Wanted(number % 4, *each) for number, each in enumerate(about)]

    def picture(self, backbone, wanted):
        generator = torch.Generator().manual_seed(sum(map(ord, wanted.prompt)) + wanted.seed)
        return torch.tanh(torch.randn(3, 4, 4, generator=generator) * backbone.weight.abs().max().item())

    def paint(self, backbone, wanted):
        self.asked += wanted
        return torch.stack([self.picture(backbone, each) for each in wanted])

    def ids(self, texts):
        return torch.tensor([[*map(ord, text)] for text in texts])

    def text_state(self, backbone, text):
        return torch.zeros(1, 1, 2)

    def remember(self, backbone, pictures):
        self.remembered = pictures

    @contextmanager
    def settled(self):
        yield


class Layer(nn.Linear):
    sharpness = 1.0

    def noise(self, seeds):
        return torch.ones(len(seeds), 2)

    def paint(self, texts, empty, noise, steps, guidance):
        return self(noise) * self.sharpness


class OneLayer(nn.Module):
    def __init__(self, task, scale=1.0):
        super().__init__()
        self.backbone, self.task = Layer(2, 2), task
        nn.init.constant_(self.backbone.weight, scale)
        nn.init.zeros_(self.backbone.bias)
        self.tuning = SimpleNamespace(off=task.settled)


def session(folder, task, scale=1.0, stop=lambda: None):
    return SimpleNamespace(
        fabric=Fabric(accelerator="cpu", devices=1),
        model=OneLayer(task, scale),
        settings=SimpleNamespace(features_dir=folder),
        data=SimpleNamespace(eval_batch_size=3),
        stop=SimpleNamespace(check=stop),
        label="run",
    )


def test_pictures_are_given_to_the_task_and_painted_once(tmp_path):
    first, again, more = Painting(5), Painting(5), Painting(7)
    for task in (first, again, more):
        run = session(tmp_path, task)
        recall(run)
        assert run.model.training
        expected = [as_bytes(task.picture(run.model.backbone, each)[None])[0] for each in task.of_class()]
        assert torch.equal(as_bytes(task.remembered), torch.stack(expected))
        assert [*task.base] == [f"class-{number:04}.png" for number in range(4)]
        for each in task.wanted()[4:]:
            assert torch.equal(task.base[each.name], as_bytes(task.picture(run.model.backbone, each)[None])[0])
    assert [len(task.asked) for task in (first, again, more)] == [9, 0, 2]
    assert {each.about for each in first.asked} == {CLASS}


def test_where_nothing_is_trained_none_are_painted_to_train_on(tmp_path):
    task = Painting(5)
    recall(session(tmp_path, task), trains=False)
    assert task.remembered is None
    assert len(task.asked) == len(task.base) == 4


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_real_backbone_is_recalled_in_both_precisions(precision, tmp_path):
    settings = Settings(lr=1e-3, accelerator="cpu", workers=0, precision=precision, features_dir=str(tmp_path / "kept"))
    model = Model(tiny_diffusion.stable_diffusion(), tiny_diffusion.subject(), LoRA(2, dropout=0.0))
    with StopRequest() as stop:
        run = tiny.session(make_fabric(settings), model, tmp_path, stop, settings=settings)
        recall(run)
    found = model.task.class_latents
    assert len(found) == model.task.class_pictures
    assert found.isfinite().all()
    with run.fabric.autocast():
        latents = model.train().backbone.encode_picture({"image_features": found})
    assert latents.dtype == torch.float32


def test_without_prior_preservation_none_are_made_for_training(tmp_path):
    task = Painting(0)
    recall(session(tmp_path, task))
    assert task.remembered is None
    assert len(task.asked) == len(task.base) == 4
    task = Painting(0)
    task.shown = "real"
    recall(session(tmp_path / "none", task))
    assert not (tmp_path / "none").exists()


def test_where_memory_does_not_do_what_to_lower_is_named(tmp_path, monkeypatch):
    def full(session):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("vltune.evaluators.evaluate.check_splits", lambda session, task: None)
    monkeypatch.setattr("vltune.features.recalled.recall", full)
    task = Painting(0)
    run, task.recalls = session(tmp_path, task), True
    run.settings.cache_features, run.clock = False, SimpleNamespace(begin=lambda phase: None)
    with pytest.raises(UserError, match=r"^run: out of memory with engine\.eval_batch_size=3: lower it and give"):
        fill(SimpleNamespace(task={"name": "subject"}), {}, run)


def test_other_weights_and_another_sampler_have_their_own(tmp_path):
    tasks = Painting(1), Painting(1), Painting(1)
    tasks[2].guidance = 3.0
    for task, scale in zip(tasks, (1.0, 2.0, 1.0), strict=True):
        recall(session(tmp_path, task, scale))
    assert [len(task.asked) for task in tasks] == [5, 5, 5]
    assert len([*(tmp_path / "painted").iterdir()]) == 3


def test_of_the_same_weights_that_compute_otherwise_other_pictures_are_kept(tmp_path):
    """A scheduler, a number of heads, a tokenizer: no weight tells them apart."""
    for sharpness in (1.0, 2.0, 1.0):
        task = Painting(1)
        run = session(tmp_path, task)
        run.model.backbone.sharpness = sharpness
        recall(run)
    assert len([*(tmp_path / "painted").iterdir()]) == 2
    assert task.asked == []


def test_what_is_tuned_is_held_otherwise_and_recalled_alike():
    """Where products are in bfloat16, frozen weights are held in it and others are cast."""
    torch.manual_seed(0)
    tuned = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    frozen = deepcopy(tuned).requires_grad_(False)
    hold(frozen, "bf16-mixed")
    assert frozen[0].weight.dtype == torch.bfloat16
    assert digest([frozen], "bf16-mixed") == digest([tuned], "bf16-mixed")
    assert digest([frozen], "bf16-mixed") != digest([tuned], "32-true")


def test_a_stopped_run_goes_on(tmp_path):
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    stopped, task = Painting(5), Painting(5)
    with pytest.raises(InterruptedError):
        recall(session(tmp_path, stopped, stop=stop))
    recall(session(tmp_path, task))
    assert (len(stopped.asked), len(task.asked)) == (6, 3)
    whole = Painting(5)
    recall(session(tmp_path / "other", whole))
    assert torch.equal(task.remembered, whole.remembered)


def test_prompts_that_say_the_same_without_their_token_each_have_a_picture(tmp_path):
    task = Painting(2, prompts=("a dog", "a dog"))
    recall(session(tmp_path, task))
    assert task.base.keys() == {each.name for each in task.wanted() if each.about == CLASS}
    assert len({each.name for each in task.wanted() if each.about == CLASS}) == 4
    assert len(task.asked) == 2 + 2  # painted once for both
