"""LoRAs to and from diffusers' pipelines, and from kohya's scripts: the same pictures."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from fabricated import fabricate
from safetensors.torch import load_file, save_file
from tiny_diffusion import ARGUMENTS, ids, inputs, stable_diffusion
from weights.test_pipelines import whole  # noqa: F401

from vltune.errors import UserError
from vltune.methods.lora import ClipLoRA, LoRA
from vltune.sharing import adapter, diffusers
from vltune.sharing.folder import export_diffusers
from vltune.sharing.imported import add, convert
from vltune.weights.backbones import load_backbone

OUT = ["query", "key", "value", "projection"]
SETTINGS = {
    "lora": (LoRA, {"_target_": "vltune.methods.lora.LoRA", "name": "lora", "rank": 3}),
    "clip_lora": (ClipLoRA, {"_target_": "vltune.methods.lora.ClipLoRA", "name": "clip_lora", "rank": 3}),
}


@pytest.fixture
def base(whole):  # noqa: F811
    """A fresh pipeline, and our backbone of the same weights."""
    folder = whole[1]
    parts = {"safety_checker": None, "tokenizer": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = StableDiffusionPipeline.from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    backbone = stable_diffusion()
    load_backbone(backbone, folder / "model_index.json", 1)
    return pipeline, backbone


def tuned(backbone, kind, tmp_path, where="fusion", roles=OUT):
    """A method on a backbone, off its start, and an adapter file of it."""
    make, settings = SETTINGS[kind]
    method = make(3, 0.0, roles=roles)
    method.sites_in = where
    tuning = method.attach(backbone)
    backbone.eval()
    with torch.no_grad():
        for parameter in tuning.trained:
            parameter.copy_(0.2 * torch.randn_like(parameter))
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items() if ".delta." in key}
    config = {
        "backbone": {"name": "sd15", "_target_": "vltune.backbones.stable_diffusion.StableDiffusion"},
        "task": {"name": "subject", "_target_": "vltune.tasks.vqa.VQA"},
        "method": settings,
    }
    adapter.write(fabricate(config=config), state, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def picture(pipeline):
    states = pipeline.text_encoder(ids()).last_hidden_state
    return pipeline(
        prompt_embeds=states[:1],
        negative_prompt_embeds=states[1:],
        num_inference_steps=5,
        height=16,
        width=16,
        output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).images


@torch.no_grad()
@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("where", ["fusion", "all"])
def test_an_exported_lora_gives_the_same_picture_in_a_pipeline(base, tmp_path, kind, where):
    (pipeline, backbone), method = base, kind
    before = picture(pipeline)
    with_ours = StableDiffusionPipeline(
        unet=backbone.unet,
        text_encoder=backbone.text,
        vae=backbone.vae,
        scheduler=pipeline.scheduler,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with_ours.set_progress_bar_config(disable=True)
    assert torch.equal(picture(with_ours), before)
    export_diffusers(tuned(backbone, method, tmp_path, where), tmp_path / "out")
    pipeline.load_lora_weights(tmp_path / "out")
    found, wanted = picture(pipeline), picture(with_ours)
    assert (found - before).abs().max() > 1e-2
    assert torch.allclose(found, wanted, atol=1e-6)
    if kind == "lora":
        assert torch.equal(found, wanted)
        latents = inputs(backbone)
        assert torch.equal(pipeline.unet(*latents).sample, backbone.denoise(*latents))
    header = json.loads(adapter.metadata(tmp_path / "out" / diffusers.TENSORS)[diffusers.HEADER])
    assert header["unet.r"] == header["unet.lora_alpha"] == 3
    assert "load_lora_weights(FOLDER)" in (tmp_path / "out" / "README.md").read_text()
    pipeline.fuse_lora()
    assert torch.allclose(picture(pipeline), wanted, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("roles", [["feed_forward_up"], ["query", "feed_forward_up", "feed_forward_down"]])
@pytest.mark.parametrize("where", ["fusion", "text", "all"])
def test_a_lora_of_other_layers_is_loaded_by_a_pipeline_or_refused(base, tmp_path, roles, where):
    pipeline, backbone = base
    source = tuned(backbone, "lora", tmp_path, where, roles)
    if "query" not in roles and where != "fusion":
        with pytest.raises(UserError, match="diffusers loads none of a text encoder's LoRA without a layer of its att"):
            export_diffusers(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    export_diffusers(source, tmp_path / "out")
    pipeline.load_lora_weights(tmp_path / "out")
    latents = inputs(backbone)
    assert torch.equal(pipeline.unet(*latents).sample, backbone.denoise(*latents))
    wanted = backbone.embed_prompt({"text_ids": ids()})
    assert torch.equal(pipeline.text_encoder(ids()).last_hidden_state, wanted)


def kohyas(tensors, alpha):
    """diffusers' names as kohya's."""
    made = {}
    for key, tensor in tensors.items():
        module, _, side = key.partition(".lora_")
        name = module.replace("text_encoder.", "te_", 1).replace("unet.", "unet_", 1).replace(".", "_")
        made[f"lora_{name}.lora_{'down' if side[0] == 'A' else 'up'}.weight"] = tensor
        made[f"lora_{name}.alpha"] = torch.tensor(alpha)
    return made


def earlier(tensors):
    """Names of attention processors and of the first version of text encoders' LoRAs."""
    made = {}
    for key, tensor in tensors.items():
        module, _, side = key.partition(".lora_")
        side = "down" if side[0] == "A" else "up"
        if module.startswith("unet"):
            attention, layer = module.removesuffix(".0").rsplit(".", 1)
            made[f"{attention}.processor.{layer}_lora.{side}.weight"] = tensor
        else:
            made[f"{module}.lora_linear_layer.{side}.weight"] = tensor
    return made


def first(tensors):
    """Of a UNet alone, whose name was not said yet."""
    return {key.removeprefix("unet."): tensor for key, tensor in earlier(tensors).items()}


@torch.no_grad()
@pytest.mark.parametrize("form", ["diffusers", "earlier", "first", "kohya"])
def test_loras_of_others_are_folded_into_the_weights(base, tmp_path, form):
    """A kohya's with half the rank for alpha is half as strong."""
    pipeline, backbone = base
    export_diffusers(tuned(backbone, "lora", tmp_path, "fusion" if form == "first" else "all"), tmp_path / "out")
    file = tmp_path / "out" / diffusers.TENSORS
    tensors = load_file(file)
    if form != "diffusers":
        save_file({"kohya": lambda of: kohyas(of, 1.5), "earlier": earlier, "first": first}[form](tensors), file)
    for site in backbone.modules():
        if getattr(site, "delta", None) is not None:
            site.delta = None
    found = diffusers.read(tmp_path / "out", backbone)
    assert len(found) == len(tensors) / 2
    add(backbone, found, file, "backbone=sd15")
    if form == "kohya":
        tensors = {key: tensor * (0.5 if "lora_B" in key else 1) for key, tensor in tensors.items()}
    pipeline.load_lora_weights(tensors)
    pipeline.fuse_lora()
    latents = inputs(backbone)
    found, wanted = backbone.denoise(*latents), pipeline.unet(*latents).sample
    assert torch.allclose(found, wanted, atol=1e-4 * wanted.abs().max().item())
    states = pipeline.text_encoder(ids()).last_hidden_state
    assert torch.allclose(backbone.embed_prompt({"text_ids": ids()}), states, atol=1e-4)


def test_an_import_writes_weights_that_a_run_takes(base, whole, tmp_path):  # noqa: F811
    (_, backbone), words = base, {"_target_": "vltune.data.tokenizer.FilledTokenizer", "padding": "[PAD]"}
    export_diffusers(tuned(backbone, "lora", tmp_path, "all"), tmp_path / "out")
    spec = {"name": "sd15", "_target_": "vltune.backbones.stable_diffusion.StableDiffusion", **ARGUMENTS}
    spec |= {"tokenizer": words | {"vocabulary": "pkg://vltune/weights/shapes_vocab.txt"}, "max_text_len": 10}
    config = {"weights": str(whole[1]), "backbone": spec | {"vocabulary_size": 140}}
    assert convert(tmp_path / "out", config, tmp_path / "mine.safetensors") == 40
    fresh = stable_diffusion()
    load_backbone(fresh, tmp_path / "mine.safetensors", 1)
    with torch.no_grad():
        found, wanted = fresh.denoise(*inputs(fresh)), backbone.denoise(*inputs(fresh))
    assert torch.allclose(found, wanted, atol=1e-4 * wanted.abs().max().item())


def test_convolutions_of_kohyas_are_folded(tmp_path):
    backbone = stable_diffusion()
    down, up = torch.randn(2, 32, 3, 3), torch.randn(32, 2, 1, 1)
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "a.safetensors")
    layer, x = backbone.unet.down_blocks[0].resnets[0].conv1, torch.randn(1, 32, 5, 5)
    conv = torch.nn.functional.conv2d
    wanted = layer(x) + conv(conv(x, down, padding=1), up)
    add(backbone, diffusers.read(tmp_path / "a.safetensors", backbone), tmp_path, "backbone=sd15")
    assert torch.allclose(layer(x), wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"lora_te2_x.lora_up.weight": 2}, "a LoRA of SDXL"),
        ({"lora_unet_input_blocks_4.lora_up.weight": 2}, "tunes lora_unet_input_blocks_4, .* of another base"),
        ({"lora_unet_conv_in.hada_w1_a": 2}, "hada_w1_a is no part of a LoRA of kohya's"),
        ({"unet.conv_in.lora_A.weight": 2}, "conv_in has not both halves of a LoRA"),
        ({"unet.conv_in.lora_magnitude_vector": 2}, "is a DoRA's; only a LoRA is read"),
        ({"transformer.weight": 2}, "is no part of a LoRA of diffusers'"),
    ],
)
def test_files_of_something_else_are_told(tmp_path, tensors, told):
    save_file({key: torch.ones(size, 2) for key, size in tensors.items()}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=told):
        diffusers.read(tmp_path / "a.safetensors", stable_diffusion())


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"alpha": torch.ones(2)}, "alpha has 2 values, and a layer has one alpha"),
        (
            {"lora_up.weight": torch.ones(32, 2, dtype=torch.int8)},
            "lora_up.weight holds int8: save the adapter in float",
        ),
    ],
)
def test_a_file_of_kohyas_with_other_numbers_is_told(more, told, tmp_path):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    halves = {"lora_down.weight": torch.ones(2, 32), "lora_up.weight": torch.ones(32, 2), "alpha": torch.tensor(2)}
    save_file({f"{name}.{key}": tensor for key, tensor in halves.items()}, tmp_path / "a.safetensors")
    assert diffusers.read(tmp_path / "a.safetensors", stable_diffusion())
    save_file({f"{name}.{key}": tensor for key, tensor in (halves | more).items()}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=told):
        diffusers.read(tmp_path / "a.safetensors", stable_diffusion())


def test_a_lora_of_another_base_is_told(tmp_path):
    backbone = stable_diffusion()
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    state = {f"{name}.lora_down.weight": torch.ones(2, 1024), f"{name}.lora_up.weight": torch.ones(32, 2)}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(
        UserError, match=r"of size \(32, 1024\), which in backbone=sd15 is \(32, 24\): of another model"
    ):
        add(backbone, diffusers.read(tmp_path / "a.safetensors", backbone), "a.safetensors", "backbone=sd15")


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_lora_whose_start_changed_the_weights_is_told(base, tmp_path, part):
    export_diffusers(tuned(base[1], "lora", tmp_path), tmp_path / "out")
    file = tmp_path / "out" / diffusers.TENSORS
    tensors, header = load_file(file), json.loads(adapter.metadata(file)[diffusers.HEADER])
    for start, told in (("OLoRA", "init_lora_weights=OLoRA changed the weights beneath"), ("gaussian", None)):
        settings = json.dumps(header | {f"{part}.init_lora_weights": start})
        save_file(tensors, file, {"format": "pt", diffusers.HEADER: settings})
        if told is None:
            assert diffusers.read(file, base[1])
        else:
            with pytest.raises(UserError, match=told):
                diffusers.read(file, base[1])


def test_weights_that_nobody_has_are_told(base, tmp_path):
    record, state = adapter.tuned(tuned(base[1], "lora", tmp_path))
    adapter.write(record | {"config": record["config"] | {"weights": None}}, state, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="weights=null: what lies beneath started at random"):
        export_diffusers(tmp_path / "b.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_has_no_form_in_diffusers_is_told(tmp_path):
    record = fabricate(config={"method": {"_target_": "vltune.methods.apt.APT", "name": "apt"}})
    with pytest.raises(UserError, match="method=apt has no form in diffusers, a LoRA has; --format vltune takes any"):
        diffusers.exported(record, {}, "a.json")
    config = {"backbone": {"name": "vilt", "_target_": "vltune.backbones.vilt.Vilt"}, "method": SETTINGS["lora"][1]}
    with pytest.raises(UserError, match="backbone=vilt is no model of diffusers'"):
        diffusers.exported(fabricate(config=config), {}, "a.json")


@pytest.mark.parametrize("name", ["encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.0.self_attn.q_proj"])
def test_a_pattern_may_have_the_text_encoder_s_name_of_today_or_of_before(name):
    header = {"text_encoder.lora_alpha": 4, "text_encoder.alpha_pattern": {name: 16}}
    assert diffusers.alpha_of("text.encoder.layers.0.self_attn.q_proj", header) == 16
    assert diffusers.alpha_of("text.encoder.layers.1.self_attn.q_proj", header) == 4
