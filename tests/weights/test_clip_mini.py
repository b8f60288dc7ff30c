"""The committed weights of the small CLIP, and that `mode=pretrain` is what made them."""

from pathlib import Path

import pytest
import torch
from composed import settled
from safetensors.torch import load_file

from vltune.assemble.data import open_generated
from vltune.assemble.factory import build
from vltune.metrics.metric import figures
from vltune.records import record as records
from vltune.runs.identity import identity
from vltune.settings.config import RunConfig
from vltune.weights.backbones import load_backbone
from vltune.weights.finding import locate

ROOT = Path(__file__).parents[2]
[RECORD] = (ROOT / "results" / "records" / "clip_mini" / "contrastive-shapes").glob("full-*-seed0.json")


@pytest.fixture(scope="module")
def config():
    return settled("mode=pretrain", "backbone=clip_mini")


@pytest.fixture(scope="module")
def file():
    return locate(settled("backbone=clip_mini", "mode=cost", "task=vqa")["weights"])


def test_the_record_is_of_this_very_configuration(config):
    record = records.read(RECORD)
    assert identity(config, record["fingerprints"]) == record["identity"]
    assert record["metrics"]["val"]["zero_shot_in_place"] > 92


@pytest.mark.parametrize("backbone", ["vilt_mini", "meter_mini"])
def test_other_backbones_are_pretrained_on_pairs(backbone):
    config = settled("mode=pretrain", f"backbone={backbone}")
    assert (config["task"]["name"], config["engine"]["schedule"], config["engine"]["max_steps"]) == (
        "pretraining",
        "linear",
        9000,
    )
    if backbone == "meter_mini":  # vilt_mini's record is older than a setting of the data
        record = records.read(ROOT / "results/records/meter_mini/pretraining-shapes/full-017c9f7e-seed0.json")
        assert identity(config, record["fingerprints"]) == record["identity"]


def test_they_are_of_the_backbone_alone_in_half_precision(config, file):
    state = load_file(file)
    assert file.stat().st_size < 700_000
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert state.keys() == build(config["backbone"]).state_dict().keys()
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_they_name_what_they_have_not_seen(config, file):
    """Zero-shot, on drawings of another seed."""
    backbone = build(config["backbone"])
    assert load_backbone(backbone, file, cls_id=2) == "vltune"
    backbone.eval()
    data = open_generated(RunConfig.of(config))
    task = build(config["task"], in_width=backbone.pooled_width, width=backbone.width, **data.facts)
    batches = data.split("val")
    rows = []
    with torch.no_grad():
        for batch in batches[:9]:
            rows += task.predictions(task(backbone, batch), batch)
    found = figures(task.metrics, rows)
    assert found["zero_shot_enlarged"] > 98
    assert found["zero_shot_in_place"] > 88
    assert found["tr_r1"] > 38
