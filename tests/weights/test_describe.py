"""`vltune weights`: what is told of files of every kind, and which backbones they fit, at real sizes (shapes only)."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from shutil import copy

import pytest
import tiny
import torch
from composed import composed
from layouts import written
from safetensors.torch import save_file
from typer.testing import CliRunner

from vltune.assemble.backbones import backbones
from vltune.assemble.model import build_pretrained
from vltune.backbones.clip import Clip, ClipTower
from vltune.cli import app
from vltune.errors import UserError
from vltune.settings.config import RunConfig
from vltune.weights.backbones import load_backbone
from vltune.weights.describe import Checkpoint, as_tower, fits, heads
from vltune.weights.maps import clip, meter, roberta, vilt

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
CLIPS = "classification, matching"
TASKS = {"vqa", "classification"}


@pytest.fixture(scope="module")
def choices():
    """Of the repository's configurations; each is built once, for all tests."""
    return [replace(choice, build=cache(choice.build)) for choice in backbones(CONF)]


def built(choices, overrides):
    """A backbone of a configuration, on the meta device."""
    choice = next(choice for choice in choices if choice.overrides == overrides and TASKS & {*choice.tasks})
    with torch.device("meta"):
        return choice.build()


def told(choices, state, family, part=None):
    return fits(Checkpoint(Path("file"), state, part, family), choices)


def test_meters_released_checkpoint_fits_at_its_own_resolution(choices):
    """As released: 288 pixels, no class token, heads and what is never run beside."""
    backbone = built(choices, "backbone=meter")
    state = {key: tensor for key, tensor in written(backbone, meter.AUTHORS).items() if key != "token4classifier"}
    state["vit_model.visual.positional_embedding"] = torch.empty(1 + 18**2, 768, device="meta")
    beside = ["itm_score.fc.weight", "vit_model.token_embedding.weight", "text_transformer.pooler.dense.weight"]
    state |= {name: torch.empty(2, 2, device="meta") for name in beside}
    started = "class_token is not in the file and starts as the text's first token"
    changed = "image size 288 -> 384, positions are interpolated"
    assert told(choices, state, meter.AUTHORS) == [
        ("fits", f"backbone=meter with task=retrieval, snli_ve, vqa; {changed}; {started}"),
        (
            "fits",
            f"backbone=meter with task=nlvr2; token types 2 -> 3, the last one is repeated; {changed}; {started}",
        ),
    ]


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_values_that_a_run_refuses_fit_nothing(dtype, choices):
    backbone = built(choices, "backbone=vilt_mini")
    state = written(backbone, vilt.AUTHORS)
    state["pooler.dense.weight"] = state["pooler.dense.weight"].to(dtype)
    kind = str(dtype).removeprefix("torch.")
    ((name, line),) = told(choices, state, vilt.AUTHORS)
    assert name == "fits"
    assert line.startswith(f"no configuration: pooler.dense.weight holds {kind}: perhaps a quantised checkpoint; use")


def test_another_image_tower_is_named(choices):
    name = "backbone=meter backbone.image_tower=clip_b32"
    lines = told(choices, written(built(choices, name), meter.AUTHORS), meter.AUTHORS)
    assert [line[1].partition(" with ")[0] for line in lines] == [name, name]


def test_a_checkpoint_of_nlvr2_fits_no_other_task(choices):
    state = written(built(choices, "backbone=vilt"), vilt.AUTHORS)
    state["token_type_embeddings.weight"] = torch.empty(3, 768, device="meta")
    assert told(choices, state, vilt.AUTHORS) == [("fits", "backbone=vilt with task=nlvr2")]


def test_the_nearest_is_told_with_what_differs(choices):
    state = written(built(choices, "backbone=vilt"), vilt.AUTHORS)
    del state["transformer.norm.bias"], state["transformer.norm.weight"]
    state["text_embeddings.word_embeddings.weight"] = torch.empty(99, 768, device="meta")
    state |= {f"extra.{i}": torch.empty(1, device="meta") for i in range(5)}
    assert told(choices, state, vilt.AUTHORS) == [
        ("fits", "no configuration; nearest is backbone=vilt"),
        ("", "vocabulary 99 in the file, 30522 in backbone=vilt"),
        ("of another size", "text.word.weight (99, 768) for (30522, 768)"),
        ("missing in the file", "norm.bias, norm.weight"),
        ("unknown in the file", "extra.0, extra.1, extra.2 and 2 more"),
    ]


def test_a_tower_is_told_with_the_key_that_takes_it(choices):
    with torch.device("meta"):
        tower = ClipTower(768, 12, 12, 3072, patch_size=16, image_size=224)
    changed = "image size 224 -> 384, positions are interpolated"
    expected = f"backbone.tower_weights.image of backbone=meter weights=null; {changed}"
    for family in (clip.OPENAI, clip.TRANSFORMERS):
        assert told(choices, written(tower, family), family, "image") == [("fits", expected)]
    text = built(choices, "backbone=meter").text
    expected = "backbone.tower_weights.text of backbone=meter weights=null"
    assert told(choices, written(text, roberta.TRANSFORMERS), roberta.TRANSFORMERS, "text") == [("fits", expected)]


@pytest.mark.parametrize("family", clip.FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("model", ["backbone=clip", "backbone=clip backbone.model=l14"])
def test_a_whole_clip_fits_the_model_of_its_sizes_and_a_tower(model, family, choices):
    state = written(built(choices, model), family)
    assert told(choices, state, family) == [("fits", f"{model} with task={CLIPS}")]
    towers = as_tower(Checkpoint(Path("file"), state, None, family), choices)
    changed = "image size 224 -> 384, positions are interpolated"
    expected = ("fits", f"backbone.tower_weights.image of backbone=meter weights=null; {changed}")
    assert towers == ([expected] if model == "backbone=clip" else [])  # METER has no tower of ViT-L


@pytest.fixture
def clips_alone(tmp_path):
    """A folder of configurations without other backbones, which take seconds to build."""
    for name in ("backbone/clip", "backbone/clip_mini", "task/classification", "task/matching"):
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        copy(CONF / f"{name}.yaml", file)
    return tmp_path / "conf"


def test_a_clip_of_other_sizes_fits_by_its_own(tmp_path, clips_alone):
    sizes = {"layers": 2, "heads": 1, "hidden": 40, "width": 64}
    text, image = {"vocabulary_size": 49408, "positions": 20, "end_of_text": 49407}, {"patch_size": 8, "image_size": 40}
    models = {"odd": {"text": sizes | text, "image": sizes | image, "dim": 20}}
    torch.save(written(Clip(models, "odd"), clip.WHOLE_OPENAI), tmp_path / "mine.pt")
    result = weights(tmp_path / "mine.pt", "--conf", clips_alone)
    for line in (
        "layout          OpenAI's or open_clip's CLIP",
        "text positions  20",
        "activation      not known (nothing beside it)",
        f"backbone=clip backbone.model=checkpoint backbone.activation=quick_gelu|gelu with task={CLIPS}",
    ):
        assert line in result.stdout, result.stdout
    assert "clip_mini" not in result.stdout  # of another vocabulary


def test_a_clip_whose_heads_are_not_known_is_told(tmp_path, clips_alone):
    torch.save(written(tiny.clip(), clip.WHOLE_OPENAI), tmp_path / "mine.pt")
    shown = " ".join(weights(tmp_path / "mine.pt", "--conf", clips_alone).stdout.split())
    assert (
        "mine.pt: how many heads it has is not known (the text tower's width of 24 is no multiple of 64); put" in shown
    )
    assert "fits no configuration; nearest is backbone=" in shown


def test_the_command_names_other_families(tmp_path):
    save_file({"logit_bias": torch.ones(1), "vision_model.head.probe": torch.ones(1)}, tmp_path / "siglip.safetensors")
    assert (
        "layout   SigLIP, which no backbone here reads; backbone=clip takes"
        in weights(tmp_path / "siglip.safetensors").stdout
    )


def test_heads_are_named():
    theirs = ("vilt.norm.weight", "mlm_score.bias", "itm_score.fc.bias", "vqa_classifier.3.bias")
    assert heads(dict.fromkeys(theirs)) == ["masked words (mlm)", "matching (itm)", "vqa"]
    assert heads(dict.fromkeys(("task.match.bias", "task.word.bias", "task.match.weight"))) == ["match", "word"]


def weights(*arguments):
    return CliRunner().invoke(app, ["weights", *map(str, arguments)], env={"COLUMNS": "160"})


def test_the_commands_help_teaches_by_example():
    assert "vltune weights weights/vilt-b32-mlm\n" in weights("--help").stdout


def test_the_command_tells_a_file_of_the_package():
    result = weights("pkg://vltune/weights/meter_mini.safetensors", "--conf", CONF)
    assert result.exit_code == 0
    for line in (
        "meter_mini.safetensors, 1.2 MB, safetensors",
        "tensors         201 with 572,576 values, float16",
        "fusion layers   2",
        "vocabulary      134",
        "image size      64",
        "heads           attribute, false_word, match, word, words",
        "fits            backbone=meter_mini with task=retrieval, snli_ve, vqa",
    ):
        assert line in result.stdout, result.stdout


def test_the_command_tells_sizes_without_configurations(tmp_path):
    state = written(tiny.vilt(), vilt.AUTHORS) | {"text_embeddings.position_ids": torch.arange(12)}
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}, tmp_path / "vilt.ckpt")
    result = weights(tmp_path / "vilt.ckpt", "--conf", tmp_path / "none")
    assert result.exit_code == 0
    for line in (
        "vilt.ckpt, 0.2 MB, PyTorch pickle",
        "layout          the authors' ViLT",
        "layers          2",
        "patch size      16",
        "image size      64",
        "values, 39 float32, 1 int64",
        "fits            not known: there is no conf/backbone here; give --conf FOLDER",
    ):
        assert line in result.stdout, result.stdout


def test_the_command_tells_a_foreign_file(tmp_path):
    save_file({"conv.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    result = weights(tmp_path / "other.safetensors")
    assert result.exit_code == 0
    named = "OpenAI's or open_clip's CLIP, transformers' CLIP, diffusers' Stable Diffusion, "
    assert f"layout   none of {named}" in result.stdout
    assert "the first keys are conv.weight" in " ".join(result.stdout.split())


def test_the_command_tells_a_layout_beneath_another_name(tmp_path):
    state = {f"net.{key}": tensor for key, tensor in written(tiny.vilt(), vilt.AUTHORS).items()}
    torch.save(state, tmp_path / "a.ckpt")
    result = weights(tmp_path / "a.ckpt")
    assert result.exit_code == 0
    assert "layout   holds the authors' ViLT under net.; save one alone" in result.stdout


def test_the_command_refuses_in_one_line(tmp_path):
    result = weights(tmp_path / "none.ckpt")
    assert (result.exit_code, result.stderr) == (2, f"error: weights={tmp_path}/none.ckpt: no such file\n")


def test_a_configuration_that_needs_more_than_its_group_is_told(tmp_path):
    for name, content in (
        ("task/vqa", "task: {name: vqa, reader: x, token_types: 2}"),
        ("backbone/odd", "width: ${engine.width}"),
    ):
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir()
        file.write_text(content)
    with pytest.raises(
        UserError, match=r"odd\.yaml: Interpolation key 'engine\.width' not found; it may refer to backbone"
    ):
        backbones(tmp_path)


def test_a_tower_is_no_backbone(tmp_path):
    save_file(written(tiny.meter().text, roberta.TRANSFORMERS), tmp_path / "roberta.safetensors")
    fix = "the text tower of a backbone and no whole one: give it as backbone.tower_weights.text, with weights=null"
    with pytest.raises(UserError, match=rf"roberta\.safetensors: transformers' RoBERTa, {fix}"):
        load_backbone(tiny.meter(), tmp_path / "roberta.safetensors", cls_id=0)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["backbone=vilt_mini", "weights=pkg://vltune/weights/meter_mini.safetensors"],
            r"meter_mini\.safetensors \(vltune\) does not fit backbone=vilt_mini: layers none in the file, 4 in "
            r"backbone=vilt_mini; .*; use backbone=meter_mini as it stands$",
        ),
        (
            ["backbone=vilt_mini", "backbone.layers=3"],
            r"backbone=vilt_mini: layers 4 in the file, 3 in backbone=vilt_mini; use backbone=vilt_mini as it stands$",
        ),
    ],
)
def test_a_run_with_another_backbones_checkpoint_is_told_which_fits(overrides, told, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = RunConfig.of(composed(*overrides))
    with pytest.raises(UserError, match=told):
        build_pretrained(config.weights, config.backbone, config.task, config.method, {"answers": ["yes", "no"]})
    monkeypatch.chdir(Path(__file__).parent)
    with pytest.raises(UserError, match=r"`vltune weights .*safetensors` tells what it is$"):
        build_pretrained(config.weights, config.backbone, config.task, config.method, {"answers": ["yes", "no"]})
