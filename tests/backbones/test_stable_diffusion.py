"""Stable Diffusion: diffusers' and transformers' own modules with sites, against these modules themselves and PEFT."""

import copy
import subprocess
import sys

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models import attention_processor as processors
from peft import LoraConfig
from tiny_diffusion import ENCODER, TEXT, UNET, VAE, folded, ids, inputs, stable_diffusion
from transformers import CLIPTextConfig, CLIPTextModel

from vltune.backbones.stable_diffusion import places
from vltune.errors import UserError
from vltune.methods.adapter import Adapter
from vltune.methods.apt import APT
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.full import Full
from vltune.methods.lora import LoRA
from vltune.methods.lst import LST
from vltune.methods.mona import Mona
from vltune.methods.prefix import Prefix
from vltune.methods.scaled_pa import ScaledParallelAdapter
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.sites import Delta, sites

OUT = ("query", "key", "value", "projection")
THEIRS = {"query": "to_q", "key": "to_k", "value": "to_v", "projection": "to_out.0"}
MIXED = {"block_out_channels": [32, 64], "attention_head_dim": [4, 8], "use_linear_projection": True}
METHODS = {
    "lora": lambda: LoRA(2, 0.0, roles=OUT),
    "adapter": lambda: Adapter(4),
    "scaled_pa": lambda: ScaledParallelAdapter(4),
    "apt": lambda: APT(6, 2),
    "mona": lambda: Mona(4),
    "deep_prompt": lambda: DeepPrompt(3, roles=["memory", "cross_memory"]),
    "shallow_prompt": lambda: ShallowPrompt(3),
    "prefix": lambda: Prefix(3),
}


def disturbed(method, **more):
    """A backbone and a method on it, away from where its deltas start."""
    backbone = stable_diffusion(**more)
    tuning = method.attach(backbone)
    with torch.no_grad():
        for parameter in tuning.trained:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone.eval(), tuning


def reference(backbone, **more):
    """diffusers' UNet of the same weights."""
    unet = UNet2DConditionModel(**{k: tuple(v) if isinstance(v, list) else v for k, v in (UNET | more).items()})
    unet.load_state_dict(backbone.unet.state_dict())
    return unet.eval()


@torch.no_grad()
@pytest.mark.parametrize("sizes", [{}, MIXED], ids=["1.5", "2.1"])
def test_without_a_method_it_is_diffusers_and_transformers_own(sizes):
    backbone = stable_diffusion(unet=sizes)
    unet, (latents, steps, text) = reference(backbone, **sizes), inputs(backbone)
    assert [*unet.state_dict()] == [*backbone.unet.state_dict()]
    assert torch.equal(unet(latents, steps, text).sample, backbone.denoise(latents, steps, text))
    encoder = CLIPTextModel(CLIPTextConfig(**ENCODER)).eval()
    encoder.load_state_dict(backbone.text.state_dict())
    assert [*encoder.state_dict()] == [*backbone.text.state_dict()]
    assert torch.equal(encoder(ids()).last_hidden_state, backbone.embed_prompt({"text_ids": ids()}))


@pytest.mark.parametrize("roles", [("query", "value"), OUT], ids=len)
def test_lora_is_diffusers_with_peft(roles):
    backbone, tuning = disturbed(LoRA(3, 0.0, roles=roles))
    unet, (latents, steps, text) = reference(backbone_without(tuning)), inputs(backbone)
    unet.add_adapter(LoraConfig(r=3, lora_alpha=3, target_modules=[THEIRS[role] for role in roles]))
    theirs = {name: parameter for name, parameter in unet.named_parameters() if "lora_" in name}
    assert len(theirs) == len(tuning.trained) == 2 * 8 * len(roles)
    pairs = []
    for name, site in named_sites(backbone.unet):
        for ours, part in ((site.delta.down, "lora_A"), (site.delta.up, "lora_B")):
            pairs.append((ours.weight, theirs[f"{name}.{part}.default.weight"]))
    with torch.no_grad():
        for ours, other in pairs:
            other.copy_(ours)
    found, wanted = backbone.denoise(latents, steps, text), unet(latents, steps, text).sample
    assert torch.equal(found, wanted)
    for output in (found, wanted):
        output.square().mean().backward()
    assert all(torch.equal(ours.grad, other.grad) for ours, other in pairs)
    with torch.no_grad(), tuning.folded():
        assert (backbone.denoise(latents, steps, text) - wanted).abs().max() < 1e-5 * wanted.abs().max()


def backbone_without(tuning):
    """What it was attached to, whose names are those of a UNet alone."""
    plain = copy.deepcopy(tuning.backbone)
    for site in sites(plain):
        site.delta = None
    return plain


def named_sites(module):
    """(the name of its layer, the site) where a method acts at a layer."""
    return [
        (name.rpartition(".")[0], site)
        for name, site in module.named_modules()
        if site in {*sites(module)} and site.delta is not None
    ]


@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_where_they_should_be(name):
    backbone = stable_diffusion()
    tuning = METHODS[name]().attach(backbone)
    backbone.requires_grad_(False)
    for parameter in tuning.trained:
        parameter.requires_grad_(True)
    with torch.no_grad():
        for parameter in tuning.trained:
            parameter.add_(0.05 * torch.randn_like(parameter))
    backbone.denoise(*inputs(backbone)).square().mean().backward()
    got = {id(parameter) for parameter in backbone.parameters() if parameter.grad is not None}
    assert got == {*map(id, tuning.trained)}
    assert all(parameter.grad.abs().max() > 0 for parameter in tuning.trained)


def test_training_the_whole_backbone_trains_the_unet_alone():
    backbone = stable_diffusion()
    assert Full.tunes_backbone
    assert {*map(id, backbone.own_parameters())} == {*map(id, backbone.unet.parameters())}


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("processor", [processors.AttnProcessor(), processors.SlicedAttnProcessor(1)], ids=type)
def test_every_attention_processor_passes_the_sites(name, processor):
    backbone, _ = disturbed(METHODS[name]())
    wanted = backbone.denoise(*inputs(backbone))
    backbone.unet.set_attn_processor(processor)
    assert (backbone.denoise(*inputs(backbone)) - wanted).abs().max() < 2e-5 * wanted.abs().max()


class Elsewhere(processors.AttnProcessor):
    """Has keys and values of its own."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        return attn.to_out[0](attn.to_q(hidden_states))


@torch.no_grad()
def test_what_would_bypass_the_sites_is_refused():
    backbone, _ = disturbed(LoRA(2, 0.0))
    with pytest.raises(UserError, match="fuse_qkv_projections: would bypass the sites"):
        backbone.unet.fuse_qkv_projections()
    backbone.denoise(*inputs(backbone))
    backbone.unet.set_attn_processor(Elsewhere())
    with pytest.raises(UserError, match=r"Elsewhere: would bypass the sites .* \(to_k, to_v\)"):
        backbone.denoise(*inputs(backbone))


@pytest.mark.parametrize("name", METHODS)
def test_gradient_checkpointing_gives_the_same_gradients(name):
    found = []
    for checkpointing in (False, True):
        backbone, tuning = disturbed(METHODS[name](), gradient_checkpointing=checkpointing)
        backbone.train()
        backbone.denoise(*inputs(backbone)).square().mean().backward()
        found.append([parameter.grad for parameter in tuning.trained])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_a_copy_has_its_own_sites_and_a_state_loads_elsewhere(name):
    backbone, tuning = disturbed(METHODS[name]())
    wanted = backbone.denoise(*inputs(backbone))
    other, state = copy.deepcopy(backbone), backbone.state_dict()
    for parameter in tuning.trained:
        parameter.zero_()
    assert torch.equal(other.denoise(*inputs(backbone)), wanted)
    fresh, _ = disturbed(METHODS[name]())
    fresh.load_state_dict({key: tensor.clone() for key, tensor in other.state_dict().items()})
    assert state.keys() == fresh.state_dict().keys()
    assert torch.equal(fresh.denoise(*inputs(backbone)), wanted)


@torch.no_grad()
@pytest.mark.parametrize("name", ["deep_prompt", "shallow_prompt", "prefix"])
def test_masked_text_stays_masked_with_prompts_behind_it(name):
    backbone, _ = disturbed(METHODS[name]())
    latents, steps, text = inputs(backbone)
    mask = torch.ones(len(text), TEXT, dtype=torch.bool)
    mask[:, 6:] = False
    changed = text.clone()
    changed[:, 6:] += 5

    def denoised(text, **more):
        return backbone.unet(latents, steps, text, **more).sample

    masked = denoised(text, encoder_attention_mask=mask)
    assert torch.equal(masked, denoised(changed, encoder_attention_mask=mask))
    shorter = denoised(text[:, :6])
    assert (masked - shorter).abs().max() < 1e-4 * shorter.abs().max()
    assert (shorter - denoised(text)).abs().max() > 1e-3 * shorter.abs().max()


@torch.no_grad()
def test_a_prefix_joins_keys_and_values_of_both_kinds_of_attention():
    """As tokens do whose keys and values it gives."""
    backbone, tuning = disturbed(Prefix(3))
    kinds = {(site.role, site.cross) for site in tuning.sites}
    assert kinds == {("keys_values", False), ("cross_keys_values", True)}
    attention = next(part for part in backbone.unet.modules() if part.__class__.__name__ == "Attention")
    x = torch.randn(2, 5, attention.to_q.in_features)
    site = attention.at_keys_values
    q, k, v = attention.to_q(x), attention.to_k(x), attention.to_v(x)
    k, v = (torch.cat([each, more.expand(2, -1, -1)], 1) for each, more in zip((k, v), site.delta(), strict=True))
    heads = [each.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for each in (q, k, v)]
    y = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    assert torch.allclose(attention(x), attention.to_out[0](y), atol=1e-5)


def test_methods_see_how_the_patches_lie():
    backbone, tuning = disturbed(Mona(4))
    backbone.denoise(*inputs(backbone))
    grids = {(site.layout.grid.rows, site.layout.grid.columns) for site in tuning.sites}
    assert grids == {(8, 8), (4, 4)}


def test_keys_and_values_of_cross_attention_see_the_text():
    backbone = stable_diffusion()
    for site in sites(backbone.unet):
        text = site.cross and site.role in {"key", "value", "cross_memory", "cross_keys_values"}
        assert (site.layout is None) == (text or site.role == "sequence"), site.role


@torch.no_grad()
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_targets_and_noise_are_the_schedulers(kind):
    backbone = stable_diffusion(scheduler={"prediction_type": kind})
    latents, steps, _ = inputs(backbone)
    noise, theirs = torch.randn_like(latents), DDPMScheduler.from_config(backbone.scheduler.config)
    assert torch.equal(backbone.noised(latents, noise, steps), theirs.add_noise(latents, noise, steps))
    wanted = {"epsilon": noise, "sample": latents, "v_prediction": theirs.get_velocity(latents, noise, steps)}[kind]
    assert torch.allclose(backbone.target(latents, noise, steps), wanted, atol=1e-6)
    assert torch.equal(backbone.loss_weight(steps), torch.ones(2))


@torch.no_grad()
def test_latents_are_the_autoencoders_scaled():
    backbone, image = stable_diffusion(), torch.rand(2, 3, 16, 16) * 2 - 1
    vae = AutoencoderKL(**VAE).eval()
    vae.load_state_dict(backbone.vae.state_dict())
    found, wanted = backbone.encode_picture({"image": image}), vae.encode(image).latent_dist
    assert torch.equal(found, wanted.mean * 0.18215)
    kept = {"image_features": backbone.image_features(image)}
    assert torch.equal(found, backbone.encode_picture(kept))
    backbone.train()
    drawn = torch.stack([backbone.encode_picture(kept) for _ in range(200)])
    assert torch.allclose(drawn.std(0) / 0.18215, wanted.std, rtol=0.4)
    assert torch.allclose(backbone.decode(found), vae.decode(found / 0.18215).sample.clamp(-1, 1), atol=1e-5)


@torch.no_grad()
def test_pictures_fold_into_latents_and_back():
    backbone, image = folded(), torch.rand(2, 3, 32, 32) * 2 - 1
    latents = backbone.encode_picture({"image": image})
    assert latents.shape == (2, 48, 8, 8) == (2, *backbone.latent_shape)
    assert torch.equal(backbone.decode(latents), image)
    assert torch.equal(backbone.encode_picture({"image_features": backbone.image_features(image)}), latents)
    assert "image" not in backbone.towers()
    weights = backbone.loss_weight(torch.tensor([0, 999]))
    assert weights.tolist() == [5, 1]


@torch.no_grad()
@pytest.mark.parametrize("make", [stable_diffusion, folded])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_picture_alone_is_the_same_as_in_a_batch(make, guidance):
    backbone = make()
    noise = backbone.noise([7, 8, 9])
    assert torch.equal(backbone.noise([8]), noise[1:2])
    text = backbone.embed_prompt({"text_ids": ids(4)})
    text, empty = text[:3], text[3:]
    together = backbone.paint(text, empty, noise, steps=4, guidance=guidance)
    alone = backbone.paint(text[1:2], empty, noise[1:2], steps=4, guidance=guidance)
    assert together.abs().max() <= 1
    assert torch.allclose(together[1:2], alone, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_a_sampler_that_begins_without_signal_paints_or_is_refused(kind, spacing):
    noise = {"rescale_betas_zero_snr": True, "prediction_type": kind, "timestep_spacing": spacing}
    backbone, text = stable_diffusion(scheduler=noise), torch.randn(1, 10, 24)
    if kind == "epsilon" and spacing != "leading":
        with pytest.raises(UserError, match="where no signal is left, and epsilon tells nothing of the picture there"):
            backbone.check_sampler(5)
        return
    backbone.check_sampler(5)
    assert backbone.paint(text, text, backbone.noise([1]), 5).isfinite().all()


def test_parts_that_do_not_fit_are_told():
    with pytest.raises(UserError, match="reads texts of width 16, and the text encoder gives 24"):
        stable_diffusion(unet={"cross_attention_dim": 16})
    with pytest.raises(
        UserError, match="prediction_type=flow_prediction: must be one of epsilon, v_prediction, sample"
    ):
        stable_diffusion(scheduler={"prediction_type": "flow_prediction"})
    with pytest.raises(UserError, match="takes 9 channels, and latents have 4"):
        stable_diffusion(unet={"in_channels": 9})
    with pytest.raises(UserError, match=r"backbone\.image_size=18: must be a multiple of 4 pixels"):
        stable_diffusion(image_size=18)
    with pytest.raises(UserError, match=r"backbone\.model=sdxl: must be one of tiny"):
        stable_diffusion(model="sdxl")


@torch.no_grad()
def test_methods_act_in_the_unet_or_in_the_text_encoder():
    backbone, tuning = disturbed(Adapter(4))
    assert {site.place for site in tuning.sites} == {"fusion"}
    before, method = backbone.embed_prompt({"text_ids": ids()}), LoRA(2, 0.0)
    method.sites_in = "text"
    for parameter in method.attach(backbone).trained:
        parameter.add_(0.1)
    assert (backbone.embed_prompt({"text_ids": ids()}) - before).abs().max() > 1e-3


class Plus(Delta):
    def forward(self, y, x):
        return y + (x == 5)[..., None]


@torch.no_grad()
def test_words_are_a_site_that_sees_ids():
    backbone, text = stable_diffusion(), ids()
    text[:, 2] = 5
    wanted = copy.deepcopy(backbone)
    wanted.text.get_input_embeddings().weight[5] += 1
    next(site for site in sites(backbone.text) if site.role == "words").put(Plus())
    assert torch.equal(backbone.embed_prompt({"text_ids": text}), wanted.embed_prompt({"text_ids": text}))


def test_only_its_users_pay_for_its_imports():
    code = "import sys, vltune.backbones.stable_diffusion, vltune.sharing.folder, vltune.weights.describe; "
    code += "sys.exit(str({'diffusers', 'transformers', 'peft'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_a_ladder_of_several_blocks_is_not_computed_again_from_its_end():
    backbone = stable_diffusion(unet={"transformer_layers_per_block": 2}, gradient_checkpointing=True)
    with pytest.raises(UserError, match=r"set engine\.gradient_checkpointing=true instead$"):
        LST(head_width=4, side_heads=2).attach(backbone)
    LST(head_width=4, side_heads=2).attach(stable_diffusion(gradient_checkpointing=True))


@torch.no_grad()
def test_latents_are_drawn_as_far_apart_as_the_autoencoder_says_and_lie_about_its_shift():
    backbone = stable_diffusion(vae=VAE | {"shift_factor": 0.5})
    kept = {"image_features": torch.cat([torch.full((1, 64, 4), 2.0), torch.full((1, 64, 4), 0.01).log()], dim=2)}
    assert torch.allclose(backbone.encode_picture(kept), torch.full((1, 4, 8, 8), 1.5 * 0.18215))
    backbone.train()
    torch.manual_seed(3)
    found = backbone.encode_picture(kept) / 0.18215
    assert found.mean().item() == pytest.approx(1.5, abs=0.03)
    assert found.std().item() == pytest.approx(0.1, rel=0.2)


def test_coordinates_are_how_far_right_and_how_far_down():
    right, down = places(torch.zeros(1, 4, 2, 3))[0].tolist()
    assert right == [[-1, 0, 1]] * 2
    assert down == [[-1] * 3, [1] * 3]


@torch.no_grad()
def test_guidance_leads_away_from_the_empty_text(monkeypatch):
    """What the network predicts is here a text's first number."""
    backbone = stable_diffusion()
    monkeypatch.setattr(
        backbone, "denoise", lambda latents, steps, texts: torch.ones_like(latents) * texts[:, 0, 0].view(-1, 1, 1, 1)
    )
    told, untold, beyond = (torch.full((1, TEXT, 24), value) for value in (0.2, 0.1, 0.1 + 3 * (0.2 - 0.1)))
    noise = backbone.noise([5])
    led, alone = (backbone.paint(text, untold, noise, 3, by) for text, by in ((told, 3.0), (beyond, 1.0)))
    assert torch.allclose(led, alone, atol=1e-5)
    assert not torch.allclose(led, backbone.paint(told, untold, noise, 3, 1.0), atol=1e-5)
