"""The committed weights of the small text-to-image model: what they paint of prompts that pretraining never saw."""

from pathlib import Path

import pytest
import torch
from composed import settled
from safetensors.torch import load_file

from vltune.assemble.data import open_generated
from vltune.assemble.factory import build
from vltune.metrics.metric import figures
from vltune.settings.config import RunConfig
from vltune.weights.backbones import load_backbone
from vltune.weights.finding import locate

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def config():
    return settled("mode=pretrain", "backbone=sd_mini")


@pytest.fixture(scope="module")
def file():
    return locate(settled("backbone=sd_mini", "mode=cost", "task=subject", "method=lora")["weights"])


def test_it_is_pretrained_by_a_task_of_its_own(config):
    assert config["task"]["name"] == "painting"
    assert "last_layer" not in config["backbone"]


def test_they_are_the_backbone_in_half_precision_and_its_heads(config, file):
    state = load_file(file)
    assert file.stat().st_size < 4_000_000
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert {name for name in state if not name.startswith("task.")} == build(config["backbone"]).state_dict().keys()
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_they_paint_what_held_out_prompts_say(config, file):
    backbone = build(config["backbone"])
    assert load_backbone(backbone, file, cls_id=2) == "vltune"
    data = open_generated(RunConfig.of(config))
    task = build(config["task"], in_width=backbone.pooled_width, width=backbone.width, **data.facts).eval()
    rows = []
    with torch.no_grad():
        for batch in data.split("val")[:6]:
            rows += task.predictions(task(backbone.eval(), batch), batch)
    found = figures(task.metrics, rows)
    assert found["placed_right"] > 88, found
    assert found["whole_right"] > 80, found
