"""Swin as METER's image tower: timm's model with our sites, and the released checkpoints' names."""

import copy

import pytest
import timm
import tiny
import torch
from tiny import SQUARE, TEXT, VOCABULARY, WIDTH

from vltune.backbones.meter import Meter
from vltune.backbones.swin import SwinTower
from vltune.methods.adapter import Adapter
from vltune.methods.apt import APT
from vltune.weights.backbones import load_backbone
from vltune.weights.maps.meter import AUTHORS

MODEL = "swin_base_patch4_window12_384"
SIZES = {"embed_dim": 8, "depths": (2, 2, 2), "num_heads": (1, 2, 2)}
TOKENS, SWIN_WIDTH = 16, 32  # of 64 x 64 pixels after patches of 4 and two mergings


def meter(image_size=64, seed=0, **more):
    torch.manual_seed(seed)
    tower = {"width": 24, "layers": 1, "heads": 2, "hidden": 48, "dropout": 0.0}
    backbone = Meter(
        text_tower={**tower, "vocabulary_size": VOCABULARY, "positions": TEXT + 2},
        image_tower="swin",
        image_towers={"swin": {"kind": "swin", "model": MODEL, "image_size": image_size, **SIZES}},
        **{"width": WIDTH, "layers": 2, "heads": 4, "hidden": 64, "dropout": 0.0, **more},
    )
    return backbone.eval()


def tuned(method):
    """A backbone with the method in its towers, away from where its deltas start."""
    backbone, method.sites_in = meter(), "towers"
    tuning = method.attach(backbone)
    with torch.no_grad():
        for parameter in tuning.trained:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone, tuning


@pytest.fixture(scope="module")
def batch():
    return tiny.batch(SQUARE)


@torch.no_grad()
def test_the_tower_gives_the_last_stages_tokens(batch):
    backbone = meter()
    assert backbone.image(batch["image"]).shape == (3, TOKENS, SWIN_WIDTH)
    assert backbone(batch).pooled.shape == (3, 2 * WIDTH)


@pytest.mark.parametrize("image_size", [64, 96])
def test_a_window_grows_with_the_image(image_size):
    """The released tower sets it to a 32nd of the image, whatever timm's name says."""
    tower = SwinTower(MODEL, image_size, **SIZES)
    windows = {block.window_size for stage in tower.body.layers for block in stage.blocks}
    assert windows == {(image_size // 32, image_size // 32)}


@torch.no_grad()
def test_the_image_stream_is_pooled_by_averaging(batch):
    """Whichever tokens the last layer is computed for: an average needs all."""
    features, first_only = meter(last_layer="all")(batch), meter(last_layer="class_token")(batch)
    average = features.image.mean(1, keepdim=True)
    torch.testing.assert_close(features.pooled[:, WIDTH:], meter().image_pooler(average))
    torch.testing.assert_close(first_only.pooled, features.pooled, atol=1e-6, rtol=0)


def test_sites_leave_timms_names_as_they_are():
    theirs = timm.create_model(MODEL, num_classes=0, img_size=64, window_size=2, **SIZES)
    assert list(SwinTower(MODEL, 64, **SIZES).state_dict()) == [f"body.{key}" for key in theirs.state_dict()]


@torch.no_grad()
def test_sites_leave_timms_output_as_it_is(batch):
    tower = SwinTower(MODEL, 64, **SIZES).eval()
    theirs = timm.create_model(MODEL, num_classes=0, img_size=64, window_size=2, **SIZES).eval()
    theirs.load_state_dict({key.removeprefix("body."): tensor for key, tensor in tower.state_dict().items()})
    assert torch.equal(tower(batch["image"]), theirs.forward_features(batch["image"]).flatten(1, 2))


@pytest.mark.parametrize(("method", "a_block"), [(Adapter(bottleneck=4), 2), (APT(prompts=5, rank=2), 1)])
def test_every_delta_in_the_tower_trains(method, a_block, batch):
    backbone, tuning = tuned(method)
    inside = tiny.tuned_sites(backbone.image)
    assert len(inside) == a_block * sum(SIZES["depths"])
    assert {site.width for site in inside} == {8, 16, 32}
    backbone.train()(batch).pooled.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in tuning.trained)


@torch.no_grad()
def test_folding_for_inference_changes_nothing(batch):
    backbone, tuning = tuned(APT(prompts=5, rank=2))
    expected = backbone(batch).pooled
    with tuning.folded():
        torch.testing.assert_close(backbone(batch).pooled, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_copy_passes_its_own_sites(batch):
    backbone, _ = tuned(APT(prompts=5, rank=2))
    before, twin = backbone(batch).pooled, copy.deepcopy(backbone)
    assert torch.equal(twin(batch).pooled, before)
    for site in tiny.tuned_sites(twin):
        site.delta.log_scale.add_(1)
    assert not torch.allclose(twin(batch).pooled, before)
    assert torch.equal(backbone(batch).pooled, before)


def released(backbone):
    """The state dict of METER's code: Swin's buffers among it, and a stage's downsampling at its end."""
    names = {
        ours.replace("{i}", str(i)): theirs.replace("{i}", str(i))
        for theirs, ours, _ in AUTHORS.rules
        if isinstance(ours, str)
        for i in range(len(backbone.text_layers))
    }
    for stage in range(1, len(SIZES["depths"])):
        for part in ("norm.weight", "norm.bias", "reduction.weight"):
            at_end = f"vit_model.layers.{stage - 1}.downsample.{part}"
            names[f"image.body.layers.{stage}.downsample.{part}"] = at_end
    tensors = backbone.state_dict() | dict(backbone.named_buffers())
    return {names.get(key, key.replace("image.body.", "vit_model.")): tensor for key, tensor in tensors.items()}


@torch.no_grad()
def test_the_released_layout_loads(batch, tmp_path):
    pretrained, backbone = meter(seed=1), meter(seed=2)
    state = released(pretrained)
    assert {"vit_model.layers.0.blocks.1.attn_mask", "vit_model.layers.0.downsample.reduction.weight"} < state.keys()
    torch.save({"state_dict": state}, tmp_path / "meter_swin.ckpt")
    assert load_backbone(backbone, tmp_path / "meter_swin.ckpt", cls_id=0) == AUTHORS.name
    assert torch.equal(backbone(batch).pooled, pretrained(batch).pooled)


@torch.no_grad()
def test_relative_positions_are_interpolated_to_another_resolution(tmp_path):
    """Windows of 2 have offsets of -1 to 1 each way, windows of 3 of -2 to 2."""
    pretrained, backbone = meter(seed=1), meter(image_size=96, seed=2)
    torch.save({"state_dict": released(pretrained)}, tmp_path / "meter_swin.ckpt")
    load_backbone(backbone, tmp_path / "meter_swin.ckpt", cls_id=0)
    for stage in range(len(SIZES["depths"])):
        tables = (
            model.image.body.layers[stage].blocks[1].attn.relative_position_bias_table
            for model in (pretrained, backbone)
        )
        small, large = (table.t().unflatten(1, (side, side)) for table, side in zip(tables, (3, 5), strict=True))
        expected = torch.nn.functional.interpolate(small[None], size=(5, 5), mode="bicubic")[0]
        torch.testing.assert_close(large, expected)
    assert backbone(tiny.batch(((96, 96),) * 3)).pooled.isfinite().all()
