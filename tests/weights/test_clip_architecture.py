"""What is told of a CLIP beside its tensors, and `backbone.model=checkpoint`, which a run's configuration takes it for."""

import json
from pathlib import Path

import clips
import pytest
import torch
from composed import composed
from safetensors.torch import save_file

from vltune.assemble.adopt import adopted
from vltune.assemble.weights import load
from vltune.backbones.clip import Clip
from vltune.errors import UserError
from vltune.settings.config import RunConfig
from vltune.weights.architecture import architecture, check_activation, check_pixels, heads
from vltune.weights.finding import find

pytest.importorskip("transformers", reason="transformers, an oracle of the tests, is not installed")
CONF = Path(__file__).parents[2] / "conf"
WIDE = {
    "text": clips.TEXT | {"width": 64, "heads": 1},
    "image": clips.IMAGE | {"width": 128, "heads": 2},
    "dim": 20,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    clips.transformers_clip().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def state():
    return clips.openai_state(clips.transformers_clip(WIDE))


@pytest.fixture
def copied(folder, tmp_path):
    """A folder of transformers', whose configuration is changed."""
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())

    def change(*path, **more):
        at = config
        for key in path:
            at = at[key]
        at.update(more)
        clips.write_json(tmp_path / "config.json", config)
        return tmp_path / "model.safetensors"

    return change


def test_a_folder_of_transformers_tells_all(folder):
    found = architecture(find(str(folder)))
    assert found.sizes == clips.SIZES
    assert (found.activation, found.source, found.pixels) == ("quick_gelu", "config.json", {})


@pytest.mark.parametrize("quick", [True, False])
def test_open_clips_configuration_tells_all(quick, tmp_path):
    file = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(clips.openai_state(clips.transformers_clip()), file)
    clips.write_json(tmp_path / "open_clip_config.json", clips.open_clip_config(quick_gelu=quick))
    found = architecture(file)
    assert found.sizes == clips.SIZES
    assert found.activation == ("quick_gelu" if quick else "gelu")
    assert found.pixels == {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}


def test_openais_archive_tells_its_sizes_and_is_quick_gelu(state, tmp_path):
    clips.script(state, tmp_path / "ViT.pt", torch.float16)
    found = architecture(tmp_path / "ViT.pt")
    assert (found.sizes, found.activation) == (WIDE, "quick_gelu")


def test_a_file_alone_tells_no_activation(state, tmp_path):
    torch.save(state, tmp_path / "w.pt")
    found = architecture(tmp_path / "w.pt")
    assert (found.sizes, found.activation) == (WIDE, None)


def test_a_file_alone_of_another_width_of_heads_is_refused(tmp_path):
    torch.save(clips.openai_state(clips.transformers_clip()), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt: how many heads it has is not known \(the text tower's width of 24 is"):
        architecture(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("token_embedding.weight", (99,)),
        ("token_embedding.weight", (1, 99, 64)),
        ("positional_embedding", ()),
        ("text_projection", ()),
        ("transformer.resblocks.0.mlp.c_fc.weight", ()),
    ],
)
def test_a_tensor_of_other_dimensions_is_told(name, shape, state, tmp_path):
    torch.save(state | {name: torch.zeros(shape)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt: is no CLIP, its embeddings, projections or layers have shapes"):
        architecture(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "value"), [("head_width", 0), ("width", 1e400), ("mlp_ratio", 1e400), ("image_size", [])]
)
def test_open_clips_configuration_without_sizes_is_told(name, value, state, tmp_path):
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    config = clips.open_clip_config(WIDE)
    config["model_cfg"]["vision_cfg"][name] = value
    clips.write_json(tmp_path / "open_clip_config.json", config)
    with pytest.raises(UserError, match=r"open_clip_config\.json: no configuration of a CLIP"):
        architecture(tmp_path / "open_clip_pytorch_model.bin")


@pytest.mark.parametrize("width", [1280, 1408, 1664])
def test_images_of_a_width_that_open_clip_has_other_heads_for_need_a_configuration(width):
    told = (
        rf"w\.pt: how many heads it has is not known \(the image tower's width of {width} has heads of other widths in"
    )
    with pytest.raises(UserError, match=told):
        heads(width, "image", Path("w.pt"))
    assert heads(width, "text", Path("w.pt")) == width // 64


def test_early_configurations_name_a_padding_token_as_the_end(copied):
    assert architecture(copied("text_config", eos_token_id=2)).sizes == clips.SIZES


@pytest.mark.parametrize(
    ("path", "more", "message"),
    [
        (("text_config",), {"hidden_size": 48}, "config.json: says text width 48, and model.safetensors has 24"),
        (("vision_config",), {"image_size": 48}, "says image image size 48, and model.safetensors has 40"),
        ((), {"projection_dim": 9}, "says dim 9, and model.safetensors has 20"),
        (("text_config",), {"hidden_act": "gelu"}, "text hidden_act=gelu, vision hidden_act=quick_gelu"),
        (("text_config",), {"layer_norm_eps": 1e-6}, "layer_norm_eps=1e-06: backbone=clip has 1e-05"),
        (("text_config",), {"num_attention_heads": 7}, "7 heads do not divide the text width of 24"),
        (("text_config",), {"num_hidden_layers": "two"}, "text layers of 'two' is no size"),
        ((), {"text_config": 3}, "config.json: no configuration of a CLIP"),
    ],
)
def test_configurations_of_other_models_are_refused(path, more, message, copied):
    with pytest.raises(UserError) as refused:
        architecture(copied(*path, **more))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("part", "option"),
    [
        ("vision_cfg", {"final_ln_after_pool": True}),
        ("text_cfg", {"no_causal_mask": True}),
        (None, {"multimodal_cfg": {"a": 1}}),
    ],
)
def test_options_of_open_clip_that_leave_no_trace_are_refused(part, option, state, tmp_path):
    torch.save(state, tmp_path / "w.pt")
    config = clips.open_clip_config(WIDE)
    (config["model_cfg"][part] if part else config["model_cfg"]).update(option)
    clips.write_json(tmp_path / "open_clip_config.json", config)
    (name,) = option
    with pytest.raises(
        UserError, match=rf"{part or 'model_cfg'}\.{name}=.*: an option of open_clip's that backbone=clip"
    ):
        architecture(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"resample": 2}, "preprocessor_config.json: resample=2: here the shorter side becomes 40, bicubic"),
        ({"size": {"shortest_edge": 64}}, "size={'shortest_edge': 64}: here"),
        ({"size": {"height": 40, "width": 40}}, "size={'height': 40, 'width': 40}: here the shorter side becomes 40"),
        ({"do_center_crop": False}, "do_center_crop=False: here"),
    ],
)
def test_another_way_to_prepare_images_is_refused(more, message, copied, tmp_path):
    clips.write_json(tmp_path / "preprocessor_config.json", {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **more})
    with pytest.raises(UserError) as refused:
        architecture(copied())
    assert message in str(refused.value)


def test_a_square_of_the_middle_is_taken(copied, tmp_path):
    ways = {"size": {"shortest_edge": 40}, "crop_size": {"height": 40, "width": 40}}
    clips.write_json(tmp_path / "preprocessor_config.json", {"image_mean": [0.5] * 3, "image_std": [0.2] * 3, **ways})
    assert architecture(copied()).pixels == {"mean": [0.5] * 3, "std": [0.2] * 3}


OWN = {"image_mean": [0.5] * 3, "image_std": [0.2] * 3, "size": {"shortest_edge": 40}}


def test_what_transformers_writes_since_its_version_5_is_read_first(copied, tmp_path):
    clips.write_json(tmp_path / "preprocessor_config.json", {"image_mean": [0.1] * 3, "image_std": [0.1] * 3})
    clips.write_json(tmp_path / "processor_config.json", {"processor_class": "CLIPProcessor"})  # of an older version
    assert architecture(copied()).pixels == {"mean": [0.1] * 3, "std": [0.1] * 3}
    clips.write_json(tmp_path / "processor_config.json", {"image_processor": OWN})
    assert architecture(copied()).pixels == {"mean": [0.5] * 3, "std": [0.2] * 3}
    clips.write_json(tmp_path / "processor_config.json", {"image_processor": OWN | {"do_center_crop": False}})
    with pytest.raises(
        UserError, match=r"processor_config\.json: do_center_crop=False: here the shorter side becomes 40"
    ):
        architecture(copied())


def test_a_processor_that_is_saved_whole_is_what_it_says(copied, tmp_path):
    from transformers import CLIPImageProcessor, CLIPProcessor, CLIPTokenizer

    images = CLIPImageProcessor(**OWN, crop_size={"height": 40, "width": 40})
    (tmp_path / "vocab.json").write_text('{"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    CLIPProcessor(image_processor=images, tokenizer=CLIPTokenizer.from_pretrained(tmp_path)).save_pretrained(tmp_path)
    assert architecture(copied()).pixels == {"mean": [0.5] * 3, "std": [0.2] * 3}


def test_what_a_run_tuned_has_the_activation_of_its_record(state, tmp_path):
    torch.save(state, tmp_path / "full-seed0.pt")
    clips.write_json(tmp_path / "full-seed0.json", {"config": {"backbone": {"activation": "gelu"}}})
    found = architecture(tmp_path / "full-seed0.pt")
    assert (found.activation, found.source) == ("gelu", "full-seed0.json")


@pytest.mark.parametrize(("before", "named"), [("", "vltune"), ("backbone.", "what a run of vltune tuned")])
def test_a_file_of_our_own_is_called_what_it_is(before, named, tmp_path):
    """And not another program's, or what nobody knows."""
    made = Clip({"small": clips.SIZES}, "small").state_dict()
    save_file({f"{before}{name}": tensor.contiguous() for name, tensor in made.items()}, tmp_path / "w.safetensors")
    told = (
        rf"w\.safetensors: in the layout of {named}, and its record says its sizes, .*: choose the backbone\.model that"
    )
    with pytest.raises(UserError, match=told):
        architecture(tmp_path / "w.safetensors")


def test_an_activation_that_contradicts_the_file_is_refused(folder):
    file = find(str(folder))
    check_activation(file, "quick_gelu", "backbone.activation")
    told = (
        r"has QuickGELU \(config\.json\), and backbone\.activation=gelu is GELU; give backbone\.activation=quick_gelu"
    )
    with pytest.raises(UserError, match=told):
        check_activation(file, "gelu", "backbone.activation")


def configured(*overrides):
    return adopted(RunConfig.of(composed("backbone=clip", "task=vqa", *overrides)), overrides)


def test_a_run_takes_sizes_and_pixels_of_its_checkpoint(tmp_path):
    torch.save(clips.openai_state(clips.transformers_clip(activation="gelu")), tmp_path / "open_clip_pytorch_model.bin")
    clips.write_json(tmp_path / "open_clip_config.json", clips.open_clip_config())
    file = tmp_path / "open_clip_pytorch_model.bin"
    backbone = configured("backbone.model=checkpoint", f"weights={file}").backbone
    assert backbone["models"]["checkpoint"] == clips.SIZES
    names = ("activation", "image_size", "max_text_len", "vocabulary_size")
    assert [backbone[name] for name in names] == ["gelu", 40, 20, 99]
    prepared = {"size": 40, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    assert {name: backbone["transform"][name] for name in prepared} == prepared
    assert backbone["protocol"] == {"text_len": 20, "image": [40, 40]}
    assert Clip(backbone["models"], backbone["model"]).image.position.shape == (25, 40)


def test_what_is_typed_stays(folder):
    backbone = configured(
        *("backbone.model=checkpoint", f"weights={folder}", "backbone.image_size=56", "backbone.max_text_len=16"),
        "backbone.protocol.text_len=9",
    ).backbone
    assert backbone["models"]["checkpoint"]["image"]["image_size"] == backbone["transform"]["size"] == 56
    assert backbone["models"]["checkpoint"]["text"]["positions"] == 20
    assert (backbone["max_text_len"], backbone["protocol"]) == (16, {"text_len": 9, "image": [56, 56]})


def test_a_named_model_stays_what_it_is(folder):
    config = configured(f"weights={folder}")
    assert config.backbone["model"] == "b16"
    assert config.backbone["image_size"] == 224


def test_a_checkpoint_needs_weights():
    with pytest.raises(UserError, match=r"backbone\.model=checkpoint: takes its sizes from weights=, which is null"):
        configured("backbone.model=checkpoint", "weights=null")


@pytest.mark.parametrize("model", ["checkpoint", "b16"])
def test_an_activation_that_nothing_tells_must_be_typed(model, state, tmp_path):
    torch.save(state, tmp_path / "w.pt")
    given = (f"backbone.model={model}", f"weights={tmp_path / 'w.pt'}")
    told = r"w\.pt: nothing tells its activation: give backbone\.activation=quick_gelu \(OpenAI's\) or backbone\.acti"
    with pytest.raises(UserError, match=told):
        configured(*given)
    assert configured(*given, "backbone.activation=gelu").backbone["activation"] == "gelu"


class Words:
    cls_id, sep_id = 97, 98


def loaded(config, monkeypatch, words=Words):
    monkeypatch.setattr("vltune.assemble.weights.tokenizer", lambda backbone: words)
    keys = ("models", "model", "activation")
    built = Clip(**{key: config.backbone[key] for key in keys})
    load(config.weights, config.backbone, config.task, built, None)


def test_what_a_configuration_says_must_be_the_files(folder, monkeypatch):
    loaded(configured("backbone.model=checkpoint", f"weights={folder}"), monkeypatch)
    other = configured("backbone.model=checkpoint", f"weights={folder}", "backbone.activation=gelu")
    with pytest.raises(UserError, match=r"has QuickGELU \(config\.json\), and backbone\.activation=gelu is GELU"):
        loaded(other, monkeypatch)


def test_other_sizes_name_the_setting_that_takes_them(folder, monkeypatch):
    text = [f"backbone.models.b16.text.{name}={size}" for name, size in clips.TEXT.items()]
    config = configured(f"weights={folder}", *text)
    told = r"not fit backbone=clip_b16: image layers 3 in the file, 12 in .*; backbone\.model=checkpoint takes the file"
    with pytest.raises(UserError, match=told):
        loaded(config, monkeypatch)


def test_other_heads_than_a_named_model_has_are_refused(folder, monkeypatch):
    text = [f"backbone.models.b16.text.{name}={size}" for name, size in (clips.TEXT | {"heads": 3}).items()]
    told = (
        r"its text tower has 2 heads \(config\.json\), that of backbone\.model=b16 3; backbone\.model=checkpoint takes"
    )
    with pytest.raises(UserError, match=told):
        loaded(configured(f"weights={folder}", *text), monkeypatch)


def test_pixels_otherwise_than_a_named_model_has_them_are_refused(copied, tmp_path, monkeypatch):
    file = copied()
    clips.write_json(tmp_path / "preprocessor_config.json", {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    told = (
        r"pixels have mean \[0\.5, 0\.5, 0\.5\] \(preprocessor_config\.json\), and \[0\.48.*\] with backbone\.model=b16"
    )
    with pytest.raises(UserError, match=told):
        loaded(configured(f"weights={file}"), monkeypatch)
    check_pixels(file, {"mean": [0.5004] * 3, "std": [0.4996] * 3}, "backbone.model=b16")


CLIPS = {"mean": [0.5] * 3, "std": [0.2] * 3, "size": 40}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"resample": 2}, "preprocessor_config.json: resample=2: here the shorter side becomes 40, bicubic"),
        ({"rescale_factor": 1 / 127.5}, "preprocessor_config.json: rescale_factor=0.00784"),
        ({"rescale_offset": True}, "preprocessor_config.json: rescale_offset=True"),
        ({"do_center_crop": False}, "do_center_crop=False: here"),
        ({"size": {"height": 40, "width": 40}}, "size={'height': 40, 'width': 40}: here the shorter side becomes 40"),
        ({"size": 46, "crop_size": 40}, "size=46: here the shorter side becomes 40"),
    ],
)
def test_another_way_to_prepare_images_than_a_named_model_s_is_refused(more, message, copied, tmp_path):
    clips.write_json(tmp_path / "preprocessor_config.json", OWN | more)
    with pytest.raises(UserError) as refused:
        check_pixels(copied(), CLIPS, "backbone.model=b16")
    assert message in str(refused.value)


@pytest.mark.parametrize("side", [40, 56])
def test_another_resolution_than_a_named_model_s_is_told(side, copied, tmp_path, capsys):
    ways = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    clips.write_json(tmp_path / "preprocessor_config.json", OWN | ways)
    file = copied()
    check_pixels(file, CLIPS, "backbone.model=b16")
    told = f"{file}: images are of 56 x 56 pixels (preprocessor_config.json), and of 40 x 40 with backbone.model=b16"
    assert capsys.readouterr().err == (f"{told}: positions are interpolated\n" if side == 56 else "")


@pytest.mark.parametrize("what", ["mean", "std"])
def test_pixels_that_are_typed_stay_with_a_checkpoint_s_own_sizes(what, copied, tmp_path, monkeypatch):
    file = copied()
    clips.write_json(tmp_path / "preprocessor_config.json", OWN)
    typed = f"backbone.transform.{what}=[0.4,0.4,0.4]"
    config = configured("backbone.model=checkpoint", f"weights={file}", typed)
    loaded(config, monkeypatch)
    assert config.backbone["transform"][what] == [0.4] * 3


def test_another_vocabulary_is_refused(folder, monkeypatch):
    words = type("Others", (Words,), {"sep_id": 5})
    with pytest.raises(UserError, match=r"ends a text with token 98, and backbone\.tokenizer with 5"):
        loaded(configured("backbone.model=checkpoint", f"weights={folder}"), monkeypatch, words)
