"""Whole CLIPs of odd sizes on random weights, from every layout, against transformers' CLIPModel."""

from copy import deepcopy

import clips
import pytest
import torch
from safetensors.torch import save_file

from vltune.backbones.clip import Clip, ClipTower
from vltune.errors import UserError
from vltune.weights.backbones import load_backbone
from vltune.weights.finding import find
from vltune.weights.towers import load_tower

pytest.importorskip("transformers", reason="transformers, an oracle of the tests, is not installed")
CLOSE = 1e-4


@pytest.fixture(scope="module")
def theirs():
    return clips.transformers_clip()


@pytest.fixture(scope="module")
def image():
    return torch.randn(5, 3, 40, 40, generator=torch.Generator().manual_seed(2))


def ours(sizes=clips.SIZES, **more):
    return Clip({"odd": sizes}, "odd", **more).eval()


def logits(model, image, ids):
    with torch.no_grad():
        return model.compare(model.embed_image({"image": image}), model.embed_text(ids))


def their_logits(model, image, ids, **more):
    with torch.no_grad():
        return model(pixel_values=image, input_ids=ids, **more).logits_per_image


def as_folder(model, folder):
    model.save_pretrained(folder)
    return find(str(folder))


def as_archive(model, folder, dtype=torch.float32):
    clips.script(clips.openai_state(model), folder / "ViT.pt", dtype)
    return folder / "ViT.pt"


def as_training_checkpoint(model, folder):
    state = {f"module.{key}": tensor for key, tensor in clips.openai_state(model).items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, folder / "epoch_3.pt")
    return folder / "epoch_3.pt"


def as_open_clip(model, folder):
    save_file(clips.openai_state(model), folder / "open_clip_model.safetensors")
    return find(str(folder))


def as_custom_text(model, folder):
    state = clips.custom_text(clips.openai_state(model))
    state["logit_scale"] = state["logit_scale"].reshape(1)
    save_file(state, folder / "open_clip_model.safetensors")
    return find(str(folder))


def as_ours(model, folder):
    same = ours()
    load_backbone(same, as_open_clip(model, folder), cls_id=0)
    save_file(same.state_dict(), folder / "ours.safetensors")
    return folder / "ours.safetensors"


LAYOUTS = {
    "transformers": as_folder,
    "OpenAI's archive": as_archive,
    "open_clip's training checkpoint": as_training_checkpoint,
    "open_clip's safetensors": as_open_clip,
    "open_clip's with text.": as_custom_text,
    "ours": as_ours,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_transformers_logits(layout, theirs, image, tmp_path, record_property):
    model, ids = ours(), clips.texts()
    load_backbone(model, LAYOUTS[layout](theirs, tmp_path), cls_id=0)
    expected = their_logits(theirs, image, ids)
    found = logits(model, image, ids)
    assert expected.std() > 0.3  # they differ from each other
    record_property("largest difference", float((found - expected).abs().max()))
    torch.testing.assert_close(found, expected, atol=CLOSE, rtol=0)


def test_half_precision_is_read_as_it_is_stored(theirs, image, tmp_path):
    """OpenAI's archives are float16: the same weights, rounded, in transformers give the same logits."""
    model, rounded = ours(), deepcopy(theirs).half().float()
    load_backbone(model, as_archive(theirs, tmp_path, torch.float16), cls_id=0)
    torch.testing.assert_close(
        logits(model, image, clips.texts()), their_logits(rounded, image, clips.texts()), atol=CLOSE, rtol=0
    )


def test_the_other_activation(image, tmp_path):
    theirs, model = clips.transformers_clip(activation="gelu"), ours(activation="gelu")
    load_backbone(model, as_folder(theirs, tmp_path), cls_id=0)
    torch.testing.assert_close(
        logits(model, image, clips.texts()), their_logits(theirs, image, clips.texts()), atol=CLOSE, rtol=0
    )


@pytest.mark.parametrize("layout", ["transformers", "OpenAI's archive"])
def test_positions_are_interpolated_to_another_resolution(layout, theirs, tmp_path):
    larger = clips.SIZES | {"image": clips.IMAGE | {"image_size": 56}}
    model, image = ours(larger), torch.randn(2, 3, 56, 56)
    load_backbone(model, LAYOUTS[layout](theirs, tmp_path), cls_id=0)
    expected = their_logits(theirs, image, clips.texts(), interpolate_pos_encoding=True)
    torch.testing.assert_close(logits(model, image, clips.texts()), expected, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("layout", ["transformers", "OpenAI's archive", "open_clip's safetensors"])
def test_a_whole_clip_is_still_an_image_tower(layout, theirs, image, tmp_path):
    tower = ClipTower(**clips.IMAGE).eval()
    load_tower(tower, LAYOUTS[layout](theirs, tmp_path), "image")
    with torch.no_grad():
        expected = theirs.vision_model(image).pooler_output
        torch.testing.assert_close(tower(image)[:, 0], expected, atol=CLOSE, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra.weight": torch.ones(2)}, "unknown in the file: extra.weight"),
        ({"text.ln_final.weight": torch.ones(24)}, "unknown in the file: text.ln_final.weight"),
        ({"ln_final.weight": None}, "missing in the file: text.norm.weight"),
        ({"text_projection": torch.ones(3, 4, 5)}, "text_projection has shape (3, 4, 5), which"),
        ({"positional_embedding": torch.ones(21, 24)}, "text positions 21 in the file, 20 in"),
        ({"logit_scale": torch.ones(2)}, "logit_scale has shape (2,), which"),
        ({"logit_bias": torch.ones(1)}, "SigLIP, which no backbone here reads"),
        ({"visual.attn_pool.query": torch.ones(1)}, "CoCa, which no backbone here reads"),
    ],
)
def test_leftovers_are_refused(change, message, theirs, tmp_path):
    state = {key: tensor for key, tensor in (clips.openai_state(theirs) | change).items() if tensor is not None}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError) as refused:
        load_backbone(ours(), tmp_path / "w.pt", cls_id=0)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_siglip_is_named(tmp_path):
    from transformers import SiglipConfig, SiglipModel

    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config=tower | {"vocab_size": 50}, vision_config=tower | {"image_size": 32, "patch_size": 16}
    )
    SiglipModel(config).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"model\.safetensors: SigLIP, which no backbone here reads; backbone=clip takes"
    ):
        load_backbone(ours(), find(str(tmp_path)), cls_id=0)


def test_a_resnet_is_named(tmp_path):
    torch.save(
        {"visual.layer1.0.conv1.weight": torch.ones(1), "visual.conv1.weight": torch.ones(1)}, tmp_path / "RN50.pt"
    )
    with pytest.raises(UserError, match=r"RN50\.pt: a CLIP with a ResNet, which no backbone"):
        load_backbone(ours(), tmp_path / "RN50.pt", cls_id=0)
