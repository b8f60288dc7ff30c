"""An adapter that was trained with PEFT on transformers' ViLT, in our backbone."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from sharing.test_peft_folder import called
from typer.testing import CliRunner
from weights.test_transformers import oracle  # noqa: F401

from vltune.cli import app
from vltune.errors import UserError
from vltune.sharing.imported import add, check, read, scale
from vltune.tasks.retrieval import Retrieval
from vltune.weights.backbones import load_backbone
from vltune.weights.finding import find
from vltune.weights.heads import matching, start_from_matching

peft = pytest.importorskip("peft", reason="PEFT is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
CLS = 2
LAYER = "encoder.layer.0.attention.attention.query"
SETTINGS = {
    "alpha": {"r": 4, "lora_alpha": 16},
    "rslora": {"r": 4, "lora_alpha": 16, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {LAYER: 2},
        "alpha_pattern": {r"layer\.1\.attention\.attention\.value": 2, "query": 5},
    },
    "every linear layer": {"r": 2, "target_modules": r".*encoder.*(query|key|value|dense)"},
    "dora": {"r": 4, "lora_alpha": 16, "use_dora": True},
    "dora on every linear layer": {
        "r": 2,
        "use_dora": True,
        "use_rslora": True,
        "target_modules": r".*encoder.*(query|key|value|dense)",
    },
    "ia3": {"target_modules": ["key", "value"], "feedforward_modules": []},
    "ia3 as published": {
        "target_modules": r".*(key|value|layer\.\d+\.output\.dense)",
        "feedforward_modules": r".*layer\.\d+\.output\.dense",
    },
}


@pytest.fixture
def base(oracle, tmp_path):  # noqa: F811
    oracle.save_pretrained(tmp_path / "base")
    return transformers.ViltModel.from_pretrained(tmp_path / "base").eval()


def trained(base, folder, **settings):
    """An adapter off its start, saved to a folder."""
    torch.manual_seed(5)
    kind = peft.IA3Config if "feedforward_modules" in settings else peft.LoraConfig
    model = peft.get_peft_model(base, kind(**{"target_modules": ["query", "value"], **settings})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "ia3_" in name:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


def pooled(model, batch):
    return called(model, batch).pooler_output


@pytest.mark.parametrize("name", SETTINGS)
def test_it_gives_the_same_outputs(name, base, tmp_path):
    batch = tiny.batch(tiny.SQUARE)
    batch["text_ids"][:, 0] = CLS
    before = pooled(base, batch)
    expected = pooled(trained(base, tmp_path / "lora", **SETTINGS[name]), batch)
    ours = tiny.vilt(token_types=2)
    load_backbone(ours, tmp_path / "base" / "model.safetensors", CLS)
    add(ours, read(tmp_path / "lora"), tmp_path / "lora", "backbone=tiny")
    with torch.no_grad():
        found = ours(batch).pooled
    assert (expected - before).abs().max() > 0.03
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)  # without a LoRA they are 1e-5 apart


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"use_qalora": True}, "use_qalora=true: only a LoRA or a DoRA can be imported"),
        ({"bias": "lora_only"}, "bias=lora_only: it trained biases as well"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa changed the weights beneath; convert it with PEFT"),
        ({"init_lora_weights": "OLoRA"}, "init_lora_weights=OLoRA changed the weights beneath; convert it with PEFT"),
        ({"modules_to_save": ["pooler.dense"]}, r'modules_to_save=["pooler.dense"]: it trained whole modules as well'),
        ({"peft_type": "LOHA"}, "peft_type=LOHA: only LORA and IA3 can be imported"),
    ],
)
def test_what_is_something_else_is_refused(settings, told, tmp_path):
    with pytest.raises(UserError) as error:
        check({"peft_type": "LORA", "r": 4, "lora_alpha": 4} | settings, tmp_path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_the_backbone_changes_nothing(base, tmp_path):
    trained(base, tmp_path / "lora", r=2)
    found = read(tmp_path / "lora")
    for other, told in [
        (
            tiny.vilt(width=16, token_types=2),
            r"of size \(32, 32\), which in backbone=x is \(16, 16\): of another model",
        ),
        (tiny.vilt(layers=1, token_types=2), "tunes encoder.layer.1.*, which is no linear layer of backbone=x"),
        (tiny.meter(), "backbone=x: transformers has no such model"),
    ]:
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(UserError, match=told):
            add(other, found, tmp_path, "backbone=x")
        assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t | {"base_model.model.x.lora_magnitude_vector": torch.ones(2)}, "is no part of a LoRA"),
        (lambda t: {k: v for k, v in t.items() if "lora_A" in k}, "has no lora_B of its rank, 2"),
        (lambda t: {k: v for k, v in t.items() if "lora_B" in k}, "is no part of a LoRA or a DoRA"),
        (lambda t: {k: v * float("nan") for k, v in t.items()}, "has values that are NaN or infinite"),
        (lambda t: {k: v.to(torch.int8) for k, v in t.items()}, "holds int8: save the adapter in float32"),
        (
            lambda t: {k: v.sum() if "lora_A" in k else v for k, v in t.items()},
            "lora_A.weight has no lora_B of its rank",
        ),
        (lambda t: {}, "holds no LORA"),
    ],
)
def test_a_file_that_is_not_whole_is_told(change, told, base, tmp_path):
    trained(base, tmp_path / "lora", r=2)
    file = tmp_path / "lora" / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(UserError, match=told):
        read(tmp_path / "lora")


@pytest.mark.parametrize("patterns", ["query", [1], 1.5])
def test_patterns_that_are_none_are_told(patterns, base, tmp_path):
    trained(base, tmp_path / "lora", r=2)
    file = tmp_path / "lora" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"alpha_pattern": patterns}))
    with pytest.raises(UserError, match=r"alpha_pattern=.* is no mapping from layers to numbers"):
        read(tmp_path / "lora")


def test_a_dora_without_its_magnitudes_and_an_ia3_that_is_none_are_told(base, tmp_path):
    folder = tmp_path / "dora"
    trained(base, folder, r=2, use_dora=True)
    file = folder / "adapter_model.safetensors"
    save_file({key: tensor for key, tensor in load_file(file).items() if "magnitude" not in key}, file)
    with pytest.raises(UserError, match="has no lora_magnitude_vector of its width, 32"):
        read(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(UserError, match=r"lora_A.weight is no part of an \(IA\)3"):
        read(folder)


def test_a_pickle_is_not_read(base, tmp_path):
    trained(base, tmp_path / "lora", r=2)
    (tmp_path / "lora" / "adapter_model.safetensors").rename(tmp_path / "lora" / "adapter_model.bin")
    with pytest.raises(UserError, match="no such file; only safetensors are read"):
        read(tmp_path / "lora")


def test_the_command_makes_weights_that_a_run_takes(tmp_path):
    """On the small backbone, whose layers have transformers' names; a pattern may say the whole of one."""
    folder, out = tmp_path / "lora", tmp_path / "mine.safetensors"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 1, "alpha_pattern": {f"^vilt.{LAYER}": 6}})
    )
    down, up = torch.randn(2, 64), torch.randn(64, 2)
    names = [f"base_model.model.vilt.{LAYER}.lora_{each}.weight" for each in "AB"]
    save_file(dict(zip(names, (down, up), strict=True)), folder / "adapter_model.safetensors")
    command = ["import", str(folder), "--backbone", "vilt_mini", "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    before, after = tiny_mini("pkg://vltune/weights/vilt_mini.safetensors"), load_file(out)
    changed = [name for name, tensor in after.items() if not torch.equal(tensor, before[name].float())]
    assert changed == ["blocks.0.attention.query.weight"]
    torch.testing.assert_close(after[changed[0]], before[changed[0]].float() + 3 * up @ down)
    again = CliRunner().invoke(app, command)
    assert again.exit_code != 0
    assert torch.equal(load_file(out)[changed[0]], after[changed[0]])
    mini, start = find("pkg://vltune/weights/vilt_mini.safetensors"), [Retrieval(64), Retrieval(64)]
    for task, file in zip(start, (mini, out), strict=True):
        start_from_matching(task, file)
    assert torch.equal(start[0].head.weight, start[1].head.weight), (
        "retrieval starts from it as from the pretrained one"
    )


@pytest.mark.parametrize("name", ["a=b.safetensors", "a,b.safetensors", "~/mine.safetensors"])
def test_weights_may_be_called_anything(name, tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("vltune.sharing.imported.convert", lambda folder, config, out: chosen.append(config["weights"]))
    command = [
        "import",
        "lora",
        "--backbone",
        "vilt_mini",
        "--out",
        str(tmp_path / "out.safetensors"),
        "--weights",
        name,
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert chosen == [name.replace("~", str(tmp_path))]


def test_a_model_of_the_backbone_may_be_chosen(tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr("vltune.sharing.imported.convert", lambda folder, config, out: chosen.append(config))
    command = ["import", "a.safetensors", "--backbone", "stable_diffusion", "--out", str(tmp_path / "out.safetensors")]
    result = CliRunner().invoke(app, [*command, "--set", "backbone.model=sd21"])
    assert result.exit_code == 0, result.output
    assert (chosen[0]["backbone"]["name"], chosen[0]["weights"]) == ("sd21", "weights/stable-diffusion-2-1")


def test_the_authors_matching_head_takes_our_name(tmp_path):
    head = {"itm_score.fc.weight": torch.randn(2, 4), "itm_score.fc.bias": torch.randn(2)}
    save_file(head | {"token_type.weight": torch.zeros(2, 4)}, tmp_path / "pretrained.safetensors")
    found = matching(tmp_path / "pretrained.safetensors")
    assert found.keys() == {"task.match.weight", "task.match.bias"}
    assert torch.equal(found["task.match.weight"], head["itm_score.fc.weight"])


def tiny_mini(name):
    from vltune.weights.files import read as read_weights
    from vltune.weights.finding import find

    return read_weights(find(name))


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, 8 / 4),  # PEFT's own
        ({"lora_alpha": 6}, 6 / 4),
        ({"lora_alpha": 6, "use_rslora": True}, 6 / 2),
        ({"lora_alpha": 6, "alpha_pattern": {"key": 1, "query": 2, r".*\.query": 3}}, 2 / 4),  # the first that matches
    ],
)
def test_the_scale_is_pefts(config, wanted):
    assert scale(config, "encoder.layer.0.query", 4, Path("adapter_config.json")) == wanted
