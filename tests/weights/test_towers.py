"""METER's towers against transformers' CLIP and RoBERTa on random weights, from their folders and from OpenAI's layout."""

from pathlib import Path

import clips
import pytest
import torch
from composed import composed

from vltune.assemble.model import build_pretrained
from vltune.assemble.weights import setting_of_tower, weight_files
from vltune.backbones.clip import ClipTower
from vltune.backbones.roberta import RobertaTower
from vltune.errors import UserError
from vltune.settings.config import RunConfig
from vltune.weights.finding import find
from vltune.weights.towers import load_tower

transformers = pytest.importorskip("transformers", reason="transformers, an oracle of the tests, is not installed")
LAYERS, WIDTH, HIDDEN, HEADS = 3, 32, 64, 4
CONF = Path(__file__).parents[2] / "conf"


def roughen(model):
    """Norms, biases and class tokens start at 0 or 1, where a mistake does not show."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=64,
        patch_size=16,
    )
    model, folder = roughen(transformers.CLIPVisionModel(config)), tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    return model, folder


def clip_tower(image_size=64):
    return ClipTower(WIDTH, LAYERS - 1, HEADS, HIDDEN, patch_size=16, image_size=image_size).eval()


def left_out(model, image):
    """CLIP up to the last block, which METER leaves out, and then normalised."""
    with torch.no_grad():
        hidden = model(image, output_hidden_states=True).hidden_states[LAYERS - 1]
        norm = next(module for name, module in model.named_modules() if name.endswith("post_layernorm"))
        return norm(hidden)


def test_clip_tower_is_transformers_without_the_last_block(clip):
    model, folder = clip
    tower, image = clip_tower(), torch.randn(2, 3, 64, 64)
    load_tower(tower, find(str(folder)), "image")
    with torch.no_grad():
        torch.testing.assert_close(tower(image), left_out(model, image), atol=1e-4, rtol=0)


def openai_layout(model):
    """The same weights under OpenAI's names, with the text tower and the projection that their file also has."""
    names = {
        "embeddings.class_embedding": "class_embedding",
        "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.patch_embedding.weight": "conv1.weight",
        "pre_layrnorm": "ln_pre",
        "post_layernorm": "ln_post",
        "encoder.layers": "transformer.resblocks",
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    state = {}
    for key, tensor in model.state_dict().items():
        name = key.removeprefix("vision_model.")
        for theirs, openais in names.items():
            name = name.replace(theirs, openais)
        state[f"visual.{name}"] = tensor
    for i in range(LAYERS):
        for p in ("weight", "bias"):
            prefix = f"visual.transformer.resblocks.{i}"
            parts = [state.pop(f"{prefix}.self_attn.{part}_proj.{p}") for part in "qkv"]
            state[f"{prefix}.attn.in_proj_{p}"] = torch.cat(parts)
    beside = {"visual.proj": torch.zeros(WIDTH, 8), "token_embedding.weight": torch.zeros(4, 8)}
    return state | beside | {"transformer.resblocks.0.ln_1.weight": torch.zeros(8)}


def test_openais_layout_gives_the_same(clip, tmp_path):
    model, _ = clip
    torch.save(openai_layout(model), tmp_path / "ViT.pt")
    tower, image = clip_tower(), torch.randn(2, 3, 64, 64)
    load_tower(tower, tmp_path / "ViT.pt", "image")
    with torch.no_grad():
        torch.testing.assert_close(tower(image), left_out(model, image), atol=1e-4, rtol=0)


def test_positions_are_interpolated_to_another_resolution(clip):
    """As transformers interpolates them: bicubic over the grid, the class token's kept."""
    model, folder = clip
    tower, image = clip_tower(image_size=96), torch.randn(2, 3, 96, 96)
    load_tower(tower, find(str(folder)), "image")
    with torch.no_grad():
        theirs = model(image, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states[LAYERS - 1]
        norm = next(module for name, module in model.named_modules() if name.endswith("post_layernorm"))
        torch.testing.assert_close(tower(image), norm(theirs), atol=1e-4, rtol=0)


def test_roberta_tower_is_transformers(tmp_path):
    config = transformers.RobertaConfig(
        vocab_size=120,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=20,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    model = roughen(transformers.RobertaModel(config))
    model.save_pretrained(tmp_path)
    tower = RobertaTower(WIDTH, LAYERS, HEADS, HIDDEN, vocabulary_size=120, positions=20).eval()
    load_tower(tower, find(str(tmp_path)), "text")
    mask = torch.arange(12) < torch.tensor([12, 5])[:, None]
    ids = torch.randint(3, 120, (2, 12)).masked_fill(~mask, 1)
    with torch.no_grad():
        theirs = model(ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(tower(ids, mask)[mask], theirs[mask], atol=1e-4, rtol=0)


def test_a_tower_of_another_size_is_told(clip):
    _, folder = clip
    tower = ClipTower(WIDTH, LAYERS + 1, HEADS, HIDDEN, patch_size=16, image_size=64)
    with pytest.raises(UserError, match=r"does not fit this backbone's image tower: layers 3 in the file, 4 in"):
        load_tower(tower, find(str(folder)), "image")


def meter_mini(*overrides):
    return RunConfig.of(composed("backbone=meter_mini", "weights=null", *overrides))


def test_a_configuration_names_the_weights_of_single_towers(clip):
    model, folder = clip
    sizes = {"width": WIDTH, "layers": LAYERS - 1, "heads": HEADS, "hidden": HIDDEN, "activation": "quick_gelu"}
    sizes = [f"backbone.image_towers.clip.{name}={value}" for name, value in sizes.items()]
    config = meter_mini(f"+backbone.tower_weights.image={folder}", *sizes)
    backbone = build_pretrained(
        config.weights, config.backbone, config.task, config.method, {"answers": ["yes", "no"]}
    ).backbone.eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.image(image), left_out(model, image), atol=1e-4, rtol=0)
    assert backbone.class_token.abs().sum() > 0
    assert weight_files(config.weights, config.backbone) == {"image": folder / "model.safetensors"}


@pytest.mark.parametrize("kind", ["vision", "whole", "open_clip"])
@pytest.mark.parametrize("given", [[], ["backbone.image_towers.clip.activation=gelu"]])
def test_a_tower_of_another_activation_is_refused(kind, given, tmp_path):
    """Of a transformers folder of the tower alone, of a whole CLIP, and of open_clip's."""
    image = {"width": WIDTH, "layers": LAYERS, "heads": HEADS, "hidden": HIDDEN, "patch_size": 16, "image_size": 64}
    model = clips.transformers_clip(clips.SIZES | {"image": image}, activation="gelu")
    if kind == "vision":
        config = transformers.CLIPVisionConfig(**clips.common(image, "gelu"), image_size=64, patch_size=16)
        transformers.CLIPVisionModel(config).save_pretrained(tmp_path)
    elif kind == "whole":
        model.save_pretrained(tmp_path)
    else:
        torch.save(clips.openai_state(model), tmp_path / "open_clip_pytorch_model.bin")
        clips.write_json(tmp_path / "open_clip_config.json", clips.open_clip_config(clips.SIZES | {"image": image}))
    sizes = {"width": WIDTH, "layers": LAYERS - 1, "heads": HEADS, "hidden": HIDDEN, "activation": "quick_gelu"}
    sizes = [f"backbone.image_towers.clip.{name}={value}" for name, value in sizes.items()]
    config = meter_mini(f"+backbone.tower_weights.image={tmp_path}", *sizes, *given)
    arguments = config.weights, config.backbone, config.task, config.method, {"answers": ["yes", "no"]}
    if given:
        assert build_pretrained(*arguments)
        return
    setting = "backbone.image_towers.clip.activation"
    told = rf"has GELU \(.*config\.json\), and {setting}=quick_gelu is QuickGELU; give {setting}=gelu$"
    with pytest.raises(UserError, match=told):
        build_pretrained(*arguments)


def test_a_setting_that_is_not_there_yet_is_typed_with_a_plus():
    backbone = {"image_tower": "clip_b16", "image_towers": {"clip_b16": {"kind": "clip"}}}
    assert setting_of_tower(backbone, "image") == "+backbone.image_towers.clip_b16.activation"
