"""Pretraining to paint: the text encoder alone, then the denoising network after it."""

import signal
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
from composed import settled
from lightning_fabric import Fabric

from vltune.assemble.data import numbered, tokenizer
from vltune.assemble.model import build_model
from vltune.data.shapes import quarters
from vltune.data.shapes.painting import PaintingBatches
from vltune.engine.source import GeneratedData
from vltune.engine.train import train
from vltune.metrics.metric import figures
from vltune.runs.signals import Interrupted, StopRequest
from vltune.settings.engine import Settings

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def made():
    """Makes a model and the batches that it learns from."""
    config = settled("mode=pretrain", "backbone=sd_mini")

    def make():
        torch.manual_seed(0)
        stream = PaintingBatches(1, 8, tokenizer(config["backbone"]), 24, steps=10, reading=0.3)
        return build_model(config["backbone"], config["task"], config["method"], stream.facts), stream

    return make


@pytest.fixture
def model(made):
    return made()[0]


@pytest.fixture
def stream(made):
    return made()[1]


def moved(model, batch):
    """The names of what one step trains."""
    model.train()
    model.zero_grad()
    model.task.loss(model(batch), batch).backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_reading_trains_the_text_encoder_and_painting_the_network(model, stream):
    reading, painting = (moved(model, numbered(stream.batch, step)) for step in (0, 5))
    assert {name.split(".")[0:2][-1] for name in reading} == {"text", "clause", "cells"}
    assert {".".join(name.split(".")[:2]) for name in painting} == {"backbone.unet"}
    assert len(reading) + len(painting) == len([*model.parameters()])


def test_losses_fall(model, stream):
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    for step in (0, 5):
        batch, losses = numbered(stream.batch, step), []
        for _ in range(6):
            torch.manual_seed(1)
            loss = model.task.loss(model(batch), batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0]


def test_pictures_as_wanted_are_right_and_others_are_not(model, stream, monkeypatch):
    drawn, render = [], quarters.render

    def remember(shown):
        drawn.append(render(shown))
        return drawn[-1]

    monkeypatch.setattr(quarters, "render", remember)
    batch = numbered(stream.held_out, 3)
    real = torch.from_numpy(drawn[0]).float() / 127.5 - 1
    found = figures(model.task.metrics, model.task.predictions(real, batch))
    assert found == dict.fromkeys(found, 100.0) and len(found) == 6
    found = figures(model.task.metrics, model.task.predictions(real.roll(1, 0), batch))
    assert found["whole_right"] < 50 and found["placed_right"] < 50


def test_what_is_scored_is_painted_after_captions_alone(model, stream):
    model.task.sampler_steps = 2
    batch = numbered(stream.held_out, 0)
    model.eval()
    with torch.no_grad():
        first = model(batch)
        again = model(batch | {"image": torch.zeros_like(batch["image"])})
    assert first.shape == (8, 3, 32, 32) and first.abs().max() <= 1
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def trained(model, stream, folder, stop_at=None, steps=6):
    """Of so many steps; a signal stops it once one of them has been logged."""
    settings = Settings(lr=1e-3, batch_size=8, max_steps=steps, accelerator="cpu", clip=1.0)
    torch.manual_seed(1)
    with StopRequest() as stop:

        def log(values, step):
            if step == stop_at:
                signal.raise_signal(signal.SIGTERM)

        data = GeneratedData(partial(numbered, stream.batch), steps_per_epoch=steps, workers=0)
        more = {"training": lambda: data, "settings": settings, "logger": tiny.Log(log), "label": "test"}
        return train(tiny.session(Fabric(accelerator="cpu", devices=1), model, folder, stop, **more), lambda: 0.0)


def test_it_stops_and_resumes_bit_for_bit_on_either_side_of_the_change(made, tmp_path):
    (straight, stream), (stopped, _), (resumed, _) = made(), made(), made()
    expected = trained(straight, stream, tmp_path / "straight")
    for stop_at in (2, 5):  # it reads until 3
        with pytest.raises(Interrupted):
            trained(stopped, stream, tmp_path / "stopped", stop_at)
    assert trained(resumed, stream, tmp_path / "stopped").history == expected.history
    for (name, a), b in zip(resumed.state_dict().items(), straight.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_picture_is_whole_where_shape_and_colour_of_every_quarter_are_right(model, monkeypatch):
    """Of two pictures the first has an object of another colour; sizes do not count."""
    wanted = torch.tensor([[[1, 2, 1], [0, 0, 0]], [[3, 1, 1], [0, 0, 0]]])
    seen = {"shape": [[1, 0], [3, 0]], "colour": [[1, 0], [1, 0]], "size": [[1, 0], [2, 0]]}

    class Judge:
        def to(self, device):
            return self

        def read(self, pictures):
            return {name: torch.tensor(values) for name, values in seen.items()}

    monkeypatch.setattr(type(model.task), "judge", [Judge()])
    rows = model.task.predictions(torch.zeros(2, 3, 32, 32), {"wanted": wanted, "ids": [0, 1]})
    assert figures(model.task.metrics, rows) == {
        "shape_right": 100.0,
        "colour_right": 50.0,
        "size_right": 50.0,
        "placed_right": 50.0,
        "empty_right": 100.0,
        "whole_right": 50.0,
    }


def test_quarters_are_read_from_where_the_text_ends(model, stream):
    """One place after the last clause's word; clauses from their own words."""
    batch = numbered(stream.batch, 0)
    texts = model.backbone.embed_prompt(batch).detach().requires_grad_()
    found = model.task.read(texts, batch)
    rows, columns = batch["ends"].unbind(1)
    last = [int(columns[rows == row].max()) + 1 for row in range(len(texts))]
    for logits, places in ((found[-1][0], enumerate(last)), (found[0][0], map(tuple, batch["ends"].tolist()))):
        (gradient,) = torch.autograd.grad(logits.sum(), texts, retain_graph=True)
        assert {tuple(place) for place in gradient.abs().sum(-1).nonzero().tolist()} == {*places}


def test_what_is_painted_where_nothing_is_wanted_is_wrong(model, monkeypatch):
    """Of two pictures the first has an object too many."""
    wanted = torch.tensor([[[1, 2, 1], [0, 0, 0]], [[3, 1, 1], [0, 0, 0]]])
    seen = {"shape": [[1, 4], [3, 0]], "colour": [[2, 1], [1, 0]], "size": [[1, 1], [1, 0]]}
    judge = type(
        "Judge", (), {"to": lambda self, _: self, "read": lambda self, _: {k: torch.tensor(v) for k, v in seen.items()}}
    )
    monkeypatch.setattr(type(model.task), "judge", [judge()])
    rows = model.task.predictions(torch.zeros(2, 3, 32, 32), {"wanted": wanted, "ids": [0, 1]})
    found = figures(model.task.metrics, rows)
    assert found.pop("empty_right") == found.pop("whole_right") == 50.0
    assert found == dict.fromkeys(found, 100.0) and len(found) == 4
