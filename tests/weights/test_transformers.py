"""Agreement with transformers' ViLT on random weights, and loading its folders."""

import pytest
import tiny
import torch

from vltune.weights.backbones import load_backbone

transformers = pytest.importorskip("transformers", reason="transformers, an oracle of the tests, is not installed")
CLS = 2


@pytest.fixture(scope="module")
def oracle():
    torch.manual_seed(0)
    config = transformers.ViltConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=tiny.WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        max_position_embeddings=tiny.TEXT,
        max_image_length=-1,
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-6,
    )
    model = transformers.ViltModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or parameter.shape[0] == 1:  # norms, biases and positions start at 0 or 1
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module")
def folder(oracle, tmp_path_factory):
    path = tmp_path_factory.mktemp("vilt")
    oracle.save_pretrained(path)
    return path


@pytest.mark.parametrize("sizes", [((64, 80), (48, 64), (64, 64)), ((64, 64),) * 3, ((16, 96), (96, 16), (32, 48))])
def test_same_features(oracle, folder, sizes):
    """At full patch count; transformers' embedding norm is at the same eps as ours only where a text has variance."""
    backbone = tiny.vilt(last_layer="all")
    load_backbone(backbone, folder / "model.safetensors", CLS)
    batch = tiny.batch(sizes=sizes)
    batch["text_ids"][:, 0] = CLS
    height, width = batch["image"].shape[2:]
    h, w = batch["image_size"][:, 0], batch["image_size"][:, 1]
    pixel_mask = (torch.arange(height)[:, None] < h[:, None, None]) & (torch.arange(width) < w[:, None, None])
    with torch.no_grad():
        theirs = oracle(
            input_ids=batch["text_ids"],
            attention_mask=batch["text_mask"].long(),
            token_type_ids=torch.zeros_like(batch["text_ids"]),
            pixel_values=batch["image"],
            pixel_mask=pixel_mask.long(),
        )
        ours = backbone(batch)
    torch.testing.assert_close(ours.pooled, theirs.pooler_output, atol=1e-4, rtol=0)
    text = theirs.last_hidden_state[:, : batch["text_ids"].shape[1]]
    real = batch["text_mask"]
    torch.testing.assert_close(ours.text[real], text[real], atol=1e-4, rtol=0)


def test_a_folder_of_a_model_with_a_head_loads_too(oracle, tmp_path):
    model = transformers.ViltForQuestionAnswering(oracle.config).eval()
    model.vilt.load_state_dict(oracle.state_dict())
    model.save_pretrained(tmp_path)
    first, second = tiny.vilt(), tiny.vilt()
    load_backbone(first, tmp_path / "model.safetensors", CLS)
    oracle.save_pretrained(tmp_path / "plain")
    load_backbone(second, tmp_path / "plain" / "model.safetensors", CLS)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
