"""Weights of text-to-image models: folders in diffusers' layout, and our own files."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from safetensors.torch import load_file, save_file
from tiny_diffusion import ENCODER, SCHEDULER, UNET, VAE, folded, ids, inputs, stable_diffusion
from transformers import CLIPTextConfig, CLIPTextModel
from yaml import safe_load

from vltune.assemble.backbones import backbones
from vltune.assemble.checkpoint import of_folder
from vltune.errors import UserError
from vltune.weights.backbones import load_backbone
from vltune.weights.describe import describe, inspect
from vltune.weights.finding import PIPELINE, find, parts
from vltune.weights.pipelines import check_pipeline, settings

CONF = Path(__file__).parents[2] / "conf"


def listed(settings):
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A random pipeline saved by diffusers, and its folder."""
    torch.manual_seed(1)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(**listed(VAE)),
        text_encoder=CLIPTextModel(CLIPTextConfig(**ENCODER)),
        tokenizer=None,
        unet=UNet2DConditionModel(**listed(UNET)),
        scheduler=PNDMScheduler(**{key: SCHEDULER[key] for key in SCHEDULER if key != "clip_sample"}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder := tmp_path_factory.mktemp("pipeline"))
    (folder / "tokenizer").mkdir(exist_ok=True)
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "!"}}))
    (folder / "safety_checker").mkdir()
    return pipeline, folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of it to change."""
    for file in (each for each in whole[1].rglob("*") if each.is_file()):
        (tmp_path / file.relative_to(whole[1])).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.relative_to(whole[1])).write_bytes(file.read_bytes())
    return tmp_path


def change(file, **more):
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


@torch.no_grad()
def check_same(backbone, pipeline):
    latents, steps, text = inputs(backbone)
    assert torch.equal(backbone.denoise(latents, steps, text), pipeline.unet.eval()(latents, steps, text).sample)
    states = pipeline.text_encoder.eval()(ids()).last_hidden_state
    assert torch.equal(backbone.embed_prompt({"text_ids": ids()}), states)
    image = torch.rand(1, 3, 16, 16)
    moments = pipeline.vae.eval().encode(image).latent_dist
    assert torch.equal(backbone.encode_picture({"image": image}), moments.mean * 0.18215)


def test_a_folder_of_diffusers_loads(whole):
    pipeline, folder = whole
    backbone = stable_diffusion()
    file = find(str(folder))
    assert file.name == PIPELINE and len(parts(file)) == 3
    assert load_backbone(backbone, file, 1) == "diffusers' Stable Diffusion"
    check_same(backbone, pipeline)


def test_names_of_older_versions_load(whole, folder):
    """The text encoder's and the autoencoder's attention, and torch's own files."""
    pipeline, file = whole[0], folder / "text_encoder" / "model.safetensors"
    texts = load_file(file)
    torch.save(
        {f"text_model.{key.removeprefix('text_model.')}": each for key, each in texts.items()}
        | {"text_model.embeddings.position_ids": torch.arange(10)[None]},
        folder / "text_encoder" / "pytorch_model.bin",
    )
    file.unlink()
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {
        re.sub(r"to_(q|k|v|out\.0)\b", lambda found: old[found[0]], key): each for key, each in load_file(file).items()
    }
    assert any("proj_attn" in key for key in state)
    save_file(state, file)
    backbone = stable_diffusion()
    load_backbone(backbone, folder / PIPELINE, 1)
    check_same(backbone, pipeline)


def test_our_own_file_loads_in_half_precision(tmp_path):
    backbone, fresh = folded(), folded()
    state = {key: tensor.half() for key, tensor in backbone.state_dict().items()} | {"task.head": torch.ones(1)}
    save_file(state, tmp_path / "sd.safetensors")
    torch.nn.init.zeros_(fresh.unet.conv_in.weight)
    assert load_backbone(fresh, tmp_path / "sd.safetensors", 1) == "vltune"
    assert torch.equal(fresh.unet.conv_in.weight, backbone.unet.conv_in.weight.half().float())


def test_a_unet_that_a_run_tuned_is_no_whole_model(tmp_path):
    state = {
        f"backbone.{key}": each for key, each in stable_diffusion().state_dict().items() if key.startswith("unet.")
    }
    save_file(state, tmp_path / "full-seed0.safetensors")
    told = r"full-seed0\.safetensors: a UNet that a run of vltune tuned, without the parts .*: mode=eval from=RECORD"
    with pytest.raises(UserError, match=told):
        load_backbone(stable_diffusion(), tmp_path / "full-seed0.safetensors", 1)


def test_what_is_left_over_is_told(whole, folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file) | {"conv_more.weight": torch.ones(2)}, file)
    with pytest.raises(UserError, match=r"unknown in the file: unet\.conv_more\.weight"):
        load_backbone(stable_diffusion(), folder / PIPELINE, 1)
    file.unlink()
    with pytest.raises(UserError, match="holds no weights of unet; copy or download the whole model"):
        find(str(folder))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("StableDiffusionXLPipeline", "SDXL"),
        ("FluxPipeline", "FLUX"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("KandinskyPipeline", "another model"),
    ],
)
def test_other_models_are_named_and_refused(folder, kind, name):
    change(folder / PIPELINE, _class_name=kind)
    told = rf"{name} \({kind}\), which no backbone here reads; backbone=stable_diffusion takes Stable Diffusion 1 and 2"
    with pytest.raises(UserError, match=told):
        find(str(folder))


def test_a_folder_without_its_list_is_told(folder):
    (folder / PIPELINE).unlink()
    with pytest.raises(UserError, match=r"has a UNet and lacks model_index\.json"):
        find(str(folder))


def test_settings_of_a_folder(whole):
    found = settings(whole[1] / PIPELINE)
    assert (found["image_size"], found["padding"]) == (16, "!")
    assert found["scheduler"]["prediction_type"] == "epsilon" and not found["scheduler"]["clip_sample"]
    backbone = stable_diffusion(pipelines={"tiny": found})
    load_backbone(backbone, whole[1] / PIPELINE, 1)
    check_same(backbone, whole[0])


@pytest.mark.parametrize(
    ("told", "mapped", "padding"),
    [
        ({"pad_token": "a"}, {"pad_token": "!"}, "!"),
        ({"pad_token": "a", "added_tokens_decoder": {}}, {"pad_token": "!"}, "a"),
        ({"pad_token": "a"}, {}, "a"),
        ({}, {}, "<|endoftext|>"),
    ],
)
def test_what_fills_a_text_is_what_transformers_takes(told, mapped, padding, folder):
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(told))
    (folder / "tokenizer" / "special_tokens_map.json").write_text(json.dumps(mapped))
    assert settings(folder / PIPELINE)["padding"] == padding


def test_noise_that_ends_at_nothing_is_told(folder):
    own = {"unet": UNET, "text": ENCODER, "vae": VAE, "scheduler": SCHEDULER}
    change(folder / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True)
    with pytest.raises(UserError, match=r"says rescale_betas_zero_snr=True, and backbone\.model=tiny has False"):
        check_pipeline(folder / PIPELINE, own, "tiny")


def test_another_schedule_or_number_of_heads_is_told(folder):
    own = {"unet": UNET, "text": ENCODER, "vae": VAE, "scheduler": SCHEDULER}
    check_pipeline(folder / PIPELINE, own, "tiny")
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    told = r"says prediction_type=v_prediction, and backbone\.model=tiny has epsilon; backbone\.model=checkpoint takes"
    with pytest.raises(UserError, match=told):
        check_pipeline(folder / PIPELINE, own, "tiny")


@pytest.mark.parametrize(
    ("part", "said", "ours"),
    [
        ("unet", {"act_fn": "gelu"}, "silu"),
        ("unet", {"norm_num_groups": 16}, 8),
        ("unet", {"norm_eps": 1e-6}, 1e-5),
        ("unet", {"flip_sin_to_cos": False}, True),
        ("unet", {"center_input_sample": True}, False),
        ("unet", {"time_embedding_act_fn": "silu"}, "none"),
        ("unet", {"timestep_post_act": "silu"}, "none"),
        ("unet", {"only_cross_attention": True}, False),
        ("text_encoder", {"layer_norm_eps": 1e-6}, 1e-5),
        ("vae", {"act_fn": "relu"}, "silu"),
        ("vae", {"norm_num_groups": 2}, 4),
        ("vae", {"shift_factor": 0.1}, 0),
    ],
)
def test_what_leaves_no_trace_and_contradicts_is_told(part, said, ours, folder):
    own = {"unet": UNET, "text": ENCODER, "vae": VAE, "scheduler": SCHEDULER}
    [file] = (folder / part).glob("*config.json")
    change(file, **said)
    [(name, value)] = said.items()
    told = f"{file}: says {name}={value}, and backbone.model=tiny has {ours}; backbone.model=checkpoint takes"
    with pytest.raises(UserError, match=re.escape(told)):
        check_pipeline(folder / PIPELINE, own, "tiny")
    check_pipeline(folder / PIPELINE, settings(folder / PIPELINE), "checkpoint")


@pytest.mark.parametrize("sampler", [EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_another_sampler_of_the_same_noise_is_let_pass(sampler, folder):
    file = folder / "scheduler" / "scheduler_config.json"
    sampler.from_config(json.loads(file.read_text())).save_pretrained(folder / "scheduler")
    own = {"unet": UNET, "text": ENCODER, "vae": VAE, "scheduler": SCHEDULER}
    check_pipeline(folder / PIPELINE, own, "tiny")


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        (FlowMatchEulerDiscreteScheduler(), "beta_schedule=None"),
        (DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True), "flow_prediction"),
        (DDPMScheduler(beta_schedule="sigmoid"), "beta_schedule=sigmoid"),
    ],
)
def test_another_kind_of_noise_is_told(scheduler, told, folder):
    scheduler.save_pretrained(folder / "scheduler")
    with pytest.raises(UserError, match=rf"scheduler_config\.json: .*{told}: noise that the backbone has not"):
        settings(folder / PIPELINE)


def test_betas_may_be_listed(folder):
    DDIMScheduler(trained_betas=[0.1, 0.2], num_train_timesteps=2).save_pretrained(folder / "scheduler")
    change(folder / "scheduler" / "scheduler_config.json", beta_schedule=None)
    assert settings(folder / PIPELINE)["scheduler"]["trained_betas"] == [0.1, 0.2]


def test_another_token_that_fills_a_text_is_told(folder, capsys):
    own = {"unet": UNET, "text": ENCODER, "vae": VAE, "scheduler": SCHEDULER}
    check_pipeline(folder / PIPELINE, own | {"padding": "<|endoftext|>"}, "tiny")
    told = (
        "fills texts with !, and backbone.model=tiny with <|endoftext|>, which the UNet sees; backbone.model=checkpoint"
    )
    assert f"{folder / 'tokenizer' / 'tokenizer_config.json'}: {told} takes the folder's own" in capsys.readouterr().err
    check_pipeline(folder / PIPELINE, own | {"padding": "!"}, "tiny")
    (folder / "tokenizer" / "tokenizer_config.json").unlink()
    check_pipeline(folder / PIPELINE, own | {"padding": "!"}, "tiny")
    assert "fills texts" not in capsys.readouterr().err


@pytest.mark.parametrize("said", [[False, False], [False]])
def test_what_is_said_of_every_block_is_one_for_all(said, folder):
    change(folder / "unet" / "config.json", only_cross_attention=said)
    check_pipeline(folder / PIPELINE, {"unet": UNET, "text": ENCODER, "vae": VAE, "scheduler": SCHEDULER}, "tiny")


SAMPLERS = {
    "PNDM": PNDMScheduler,
    "DDIM": DDIMScheduler,
    "DDPM": DDPMScheduler,
    "by their own defaults": lambda **noise: DDIMScheduler(**{name: noise[name] for name in NOISE}),
    "of other steps": lambda **noise: DDIMScheduler(**noise | {"clip_sample": True, "set_alpha_to_one": True}),
    "linspace": lambda **noise: DPMSolverMultistepScheduler(**{name: noise[name] for name in NOISE}),
}
NOISE = ("beta_schedule", "beta_start", "beta_end", "prediction_type", "num_train_timesteps")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_how_a_sampler_steps_does_not_follow_from_the_one_that_the_folder_was_saved_with(sampler, folder):
    """It is what diffusers makes of the published folders."""
    published = settings(folder / PIPELINE)["scheduler"]
    theirs = DDIMScheduler.from_config(
        PNDMScheduler(**{n: SCHEDULER[n] for n in SCHEDULER if n != "clip_sample"}).config
    )
    noise = {name: theirs.config[name] for name in NOISE}
    SAMPLERS[sampler](**noise).save_pretrained(folder / "scheduler")
    found = settings(folder / PIPELINE)["scheduler"]
    assert found == published
    for name in ("steps_offset", "set_alpha_to_one", "timestep_spacing"):
        assert DDIMScheduler(**found).config[name] == theirs.config[name]
    assert not found["clip_sample"]


def test_a_sampler_of_noise_that_ends_at_nothing_begins_with_it(folder):
    change(folder / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    assert settings(folder / PIPELINE)["scheduler"]["timestep_spacing"] == "trailing"


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_in_several_files_loads(variant, safe, whole, tmp_path):
    """As diffusers writes it, and transformers its part."""
    pipeline, text = whole[0], tmp_path / "text_encoder"
    pipeline.save_pretrained(tmp_path, max_shard_size="20KB", variant=variant, safe_serialization=safe)
    assert len([*text.glob("*-of-*")]) > 1 and len([*(tmp_path / "unet").glob("*-of-*")]) > 1
    backbone = stable_diffusion()
    assert load_backbone(backbone, find(str(tmp_path)), 1) == "diffusers' Stable Diffusion"
    check_same(backbone, pipeline)


def test_the_published_configurations_are_those_of_the_model(folder):
    """As the official folder of 1.5 has them."""
    unet = {"act_fn": "silu", "attention_head_dim": 8, "center_input_sample": False, "downsample_padding": 1}
    unet |= {"flip_sin_to_cos": True, "freq_shift": 0, "mid_block_scale_factor": 1, "norm_eps": 1e-05}
    unet |= {"norm_num_groups": 32, "sample_size": 64}
    text = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-05, "num_attention_heads": 12, "eos_token_id": 2}
    text |= {"vocab_size": 49408, "max_position_embeddings": 77}
    vae = {"act_fn": "silu", "block_out_channels": [128, 256, 512, 512], "norm_num_groups": 32, "sample_size": 512}
    noise = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000}
    noise |= {"set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None}
    noise |= {"clip_sample": False}
    parts = {"unet": unet, "text_encoder": text, "vae": vae}
    for part, said in parts.items():
        (folder / part / "config.json").write_text(json.dumps(said))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(noise))
    own = safe_load((CONF / "backbone" / "stable_diffusion.yaml").read_text())["pipelines"]["sd15"]
    check_pipeline(folder / PIPELINE, own, "sd15")


@pytest.mark.parametrize(
    ("part", "said", "told"),
    [
        ("unet", {"sample_size": None}, "sample_size=None: must be the side of square latents"),
        ("unet", {"sample_size": [8, 16]}, r"sample_size=\[8, 16\]: must be the side of square latents"),
        ("vae", {"block_out_channels": None}, "says no block_out_channels; copy or download"),
    ],
)
def test_a_folder_that_says_no_size_is_told(part, said, told, folder):
    change(folder / part / "config.json", **said)
    with pytest.raises(UserError, match=rf"{part}/config\.json: {told}"):
        settings(folder / PIPELINE)


def test_latents_may_be_said_by_both_sides(folder):
    change(folder / "unet" / "config.json", sample_size=[8, 8])
    assert settings(folder / PIPELINE)["image_size"] == 16


def test_a_configuration_takes_a_folders_own(whole):
    backbone = {
        "pipelines": {},
        "image_size": 512,
        "vocabulary_size": 1,
        "max_text_len": 1,
        "tokenizer": {"padding": None},
        "transform": {"size": 512},
        "protocol": {"text_len": 77, "image": [512, 512]},
    }
    found = of_folder(backbone, settings(whole[1] / PIPELINE))
    assert (found["image_size"], found["max_text_len"], found["vocabulary_size"]) == (16, 10, 60)
    assert (found["tokenizer"], found["transform"]) == ({"padding": "!"}, {"size": 16})
    typed = of_folder(backbone, settings(whole[1] / PIPELINE), {"backbone.image_size"})
    assert (typed["image_size"], typed["transform"], typed["protocol"]["image"]) == (512, {"size": 512}, [512, 512])


def test_a_folder_is_described(whole):
    file = whole[1] / PIPELINE
    lines = describe(inspect(file), backbones(CONF, file))
    told = dict(lines)
    assert told["layout"] == "diffusers' Stable Diffusion"
    assert (told["predicts"], told["padding"], told["ignored"]) == ("epsilon", "!", "safety_checker: no run uses it")
    assert told["fits"].startswith("backbone=stable_diffusion backbone.model=checkpoint")


def test_a_folder_that_leaves_its_activation_out_is_described(folder):
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "hidden_act"}))
    assert dict(describe(inspect(find(str(folder))), backbones(CONF)))["activation"] == "quick_gelu"


def test_what_a_run_does_not_use_is_told(whole, capsys):
    file = whole[1] / PIPELINE
    check_pipeline(file, settings(file), "checkpoint")
    assert capsys.readouterr().err == f"{whole[1]}: safety_checker is left aside, no run uses it\n"


def test_a_whole_model_in_one_file_is_told(tmp_path):
    save_file(
        {"model.diffusion_model.out.2.weight": torch.ones(2), "alphas": torch.ones(2)}, tmp_path / "sd.safetensors"
    )
    with pytest.raises(UserError, match=r"Stable Diffusion in one file; make a folder of it, diffusers\.Stable"):
        load_backbone(stable_diffusion(), tmp_path / "sd.safetensors", 1)
