"""What `auto` is, what frozen weights are held in, and that scores hardly depend on it."""

import pytest
import tiny
import torch
from composed import composed, settled
from test_combinations import BACKBONES, METHODS, TASKS, disturb
from test_run import QUICK, WORLD, run

from vltune.assemble.data import open_data
from vltune.engine import processor
from vltune.engine.precision import hold, settle
from vltune.experiment.evaluate import figures
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.records import record as records
from vltune.settings.config import RunConfig


def on_cpu(monkeypatch, tmp_path, flags):
    """flags: the maker and what its processor has, or None where nothing is told."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    if flags is not None:
        maker, flag = flags.split()
        processor.CPUINFO.write_text(f"vendor_id : {maker}\nflags : fpu {flag} pni\n")


@pytest.mark.parametrize(
    ("flags", "arguments", "expected"),
    [
        ("GenuineIntel amx_bf16", ["backbone=vilt"], "bf16-mixed"),
        ("AuthenticAMD avx512_bf16", ["backbone=meter"], "bf16-mixed"),
        ("GenuineIntel avx512_bf16", ["backbone=meter"], "32-true"),
        ("GenuineIntel amx_bf16", ["backbone=clip", "task=classification", "dataset=food101"], "bf16-mixed"),
        ("GenuineIntel amx_bf16", ["backbone=stable_diffusion", "task=subject"], "bf16-mixed"),
        ("GenuineIntel amx_bf16", ["backbone=vilt_mini"], "32-true"),
        ("GenuineIntel amx_bf16", ["backbone=clip_mini", "task=classification"], "32-true"),
        ("GenuineIntel amx_bf16", ["backbone=sd_mini", "task=subject"], "32-true"),
        ("GenuineIntel amx_bf16", ["backbone=vilt", "mode=cost"], "32-true"),
        ("GenuineIntel amx_bf16", ["backbone=vilt", "engine.precision=32-true"], "32-true"),
        ("GenuineIntel avx512f", ["backbone=vilt"], "32-true"),
        (None, ["backbone=vilt"], "32-true"),
    ],
)
def test_auto_follows_processor_and_size(flags, arguments, expected, monkeypatch, tmp_path):
    on_cpu(monkeypatch, tmp_path, flags)
    assert settle(composed(*arguments))["engine"]["precision"] == expected


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_held_weights_give_what_autocast_gives(method, name):
    """To the bit; a method that computes with the weights themselves reads rounded ones."""
    make, sizes = BACKBONES[name]
    backbone = make()
    model = Model(backbone, TASKS["vqa"](backbone.pooled_width, backbone.width), METHODS[method][0]())
    disturb(model)
    model.eval()
    batch = tiny.batch(sizes)
    before = {key for key, tensor in model.state_dict().items() if tensor.dtype == torch.bfloat16}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cast = model(batch)
        hold(model, "bf16-mixed")
        held = model(batch)
    with torch.no_grad(), model.tuning.folded(), torch.autocast("cpu", torch.bfloat16):
        folded = model(batch)
    if method == "dora" or method.startswith("peft "):
        torch.testing.assert_close(held, cast, atol=0.05, rtol=0.05)
    else:
        assert torch.equal(held, cast)
    torch.testing.assert_close(folded, held, atol=0.1, rtol=0.1)
    lower = {key for key, tensor in model.state_dict().items() if tensor.dtype == torch.bfloat16}
    assert not before and (lower or method == "full")
    assert all(not parameter.requires_grad for parameter in model.parameters() if parameter.dtype == torch.bfloat16)


def test_nothing_is_held_lower_where_nothing_is_multiplied_lower():
    backbone = tiny.vilt()
    model = Model(backbone, TASKS["vqa"](backbone.pooled_width, backbone.width), LoRA(2))
    hold(model, "32-true")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_what_is_read_in_another_way_too_stays():
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5, bias=False), torch.nn.Linear(5, 2))
    model[1].weight = model[0].weight
    hold(model.requires_grad_(False), "bf16-mixed")
    assert [each.weight.dtype for each in model] == [torch.float32, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("backbone", ["vilt_mini", "meter_mini"])
def test_scores_agree(backbone, tmp_path):
    """Of what was tuned in float32: within a point in both precisions, on 600 questions."""
    places = [f"dataset.data_dir={tmp_path / 'shapes'}", f"results_dir={tmp_path}", f"engine.features_dir={tmp_path}"]
    world = f"dataset.generate={WORLD.replace('test: 30', 'test: 150')}"
    run(f"backbone={backbone}", "method=lora", *QUICK, *places, world, "engine.max_steps=60", "engine.evaluate=[test]")
    (file,) = tmp_path.glob("records/**/*.json")
    config = records.read(file)["config"] | {"from": None, "results_dir": str(tmp_path)}
    found = []
    for name in ("32-true", "bf16-mixed"):
        lower = RunConfig.of(settled() | config | {"engine": config["engine"] | {"precision": name}})
        found.append(figures(lower, open_data(lower), file)["test"]["vqa_score"])
    assert found[0] > 0
    assert abs(found[0] - found[1]) <= 1.0
