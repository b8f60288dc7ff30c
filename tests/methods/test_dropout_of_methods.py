"""A method's `dropout` drops in training, in every method that has one, and never otherwise."""

from pathlib import Path

import pytest
import tiny
import torch
import yaml
from composed import composed
from test_combinations import disturb

from vltune.assemble.factory import build_method
from vltune.model import Model
from vltune.tasks.vqa import VQA

CONF = Path(__file__).parents[2] / "conf" / "method"
WITH_DROPOUT = sorted(file.stem for file in CONF.glob("*.yaml") if "dropout" in yaml.safe_load(file.read_text()))


def made(name, share):
    torch.manual_seed(0)
    method = build_method(composed(f"method={name}", "backbone=vilt_mini")["method"] | {"dropout": share})
    method.sites_in = "all"
    model = Model(tiny.vilt(), VQA(tiny.WIDTH, tiny.WIDTH, tiny.ANSWERS), method)
    disturb(model)
    return model


def differ(model):
    """Whether the same batch gives another output the second time."""
    batch = tiny.batch()
    with torch.no_grad():
        return not torch.equal(model(batch), model(batch))


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_it_drops_in_training_alone(name):
    assert differ(made(name, 0.5).train())
    assert not differ(made(name, 0.0).train())
    assert not differ(made(name, 0.5).eval())


def test_most_published_ones_have_it():
    assert {"adaptformer", "apt", "convpass", "dora", "fact", "lora", "lst", "mona", "rep_adapter"} <= {*WITH_DROPOUT}
