"""Latents and a frozen text encoder's states are kept as every frozen feature is."""

from types import SimpleNamespace

import pytest
import tiny
import torch
from lightning_fabric import Fabric
from tiny_diffusion import stable_diffusion

from vltune.data.collate import Collate
from vltune.data.shapes import ensure
from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.tokenizer import FilledTokenizer
from vltune.data.transforms import SquareResize
from vltune.data.vqav2.reader import VQAv2
from vltune.features import cache
from vltune.runs.signals import StopRequest
from vltune.settings.engine import Settings

LENGTH = 24


@pytest.fixture
def reader(tmp_path):
    ensure(tmp_path, "vqav2", seed=1, images={"train": 4, "val": 2, "test": 2})
    words = FilledTokenizer(VOCABULARY, "[PAD]", LENGTH)
    transform = SquareResize(16, crop=False, mean=[0.5] * 3, std=[0.5] * 3)
    return VQAv2(tmp_path / "vqav2", ["vqav2_train"], words, transform)


@torch.no_grad()
def test_latents_and_texts_are_kept(reader, tmp_path):
    backbone = stable_diffusion(text={"vocab_size": 140, "max_position_embeddings": LENGTH, "eos_token_id": 3})
    model = SimpleNamespace(backbone=backbone, trains=lambda part: False)
    collate = Collate(0, reader.transform.mean, reader.transform.std)
    plain = collate([reader[i] for i in range(3)])
    settings = Settings(lr=1e-2, accelerator="cpu", workers=0, features_dir=tmp_path / "features")
    with StopRequest() as stop:
        session = tiny.session(Fabric(accelerator="cpu"), model, tmp_path, stop, settings=settings, collate=collate)
        assert cache.attach(session, [reader]) == ["text", "image"]
    kept = collate([reader[i] for i in range(3)])
    assert "image" not in kept and kept["text_features"].shape == (3, LENGTH, backbone.width)
    latents, texts = backbone.encode_picture(kept), backbone.embed_prompt(kept)
    assert latents.shape == (3, *backbone.latent_shape)
    assert torch.allclose(latents, backbone.encode_picture(plain), atol=1e-5)
    assert torch.allclose(texts, backbone.embed_prompt(plain), atol=1e-5)


def test_a_text_encoder_that_trains_is_not_kept(reader, tmp_path):
    backbone = stable_diffusion(text={"vocab_size": 140, "max_position_embeddings": LENGTH})
    model = SimpleNamespace(backbone=backbone, trains=lambda part: part is backbone.text)
    collate = Collate(0, reader.transform.mean, reader.transform.std)
    settings = Settings(lr=1e-2, accelerator="cpu", workers=0, features_dir=tmp_path / "features")
    with StopRequest() as stop:
        session = tiny.session(Fabric(accelerator="cpu"), model, tmp_path, stop, settings=settings, collate=collate)
        assert cache.attach(session, [reader]) == ["image"]
