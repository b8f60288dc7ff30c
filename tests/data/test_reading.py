"""What all readers share: stored features in the place of pixels, pictures and texts to compute them from."""

from hashlib import sha256

import pytest
import torch

from vltune.data.collate import Collate
from vltune.data.reading import Reader
from vltune.data.vqav2 import VQAv2
from vltune.errors import BadExampleError, UserError


class Stored:
    """Features that say which image and which text they are of."""

    def image(self, picture, which):
        return torch.tensor([[picture, which]] * 3).float()

    def text(self, ids):
        return torch.tensor(ids).float()[:, None]


class OnlyText(Stored):
    def image(self, picture, which):
        return None


@pytest.fixture
def dataset(prepared, tokenizer, transform):
    return VQAv2(prepared, ["vqav2_train", "vqav2_val"], tokenizer, transform)


def test_features_take_the_place_of_pixels(dataset, monkeypatch, tokenizer, transform):
    plain = [dataset[i] for i in (0, 9, 250)]
    dataset.features = Stored()
    monkeypatch.setattr(type(transform), "__call__", None)
    examples = [dataset[i] for i in (0, 9, 250)]
    for before, e in zip(plain, examples, strict=True):
        assert e.keys() == before.keys() - {"image"} | {"image_features", "text_features"}
        assert e["text_features"][:, 0].tolist() == e["text_ids"] == before["text_ids"]
    assert [e["image_features"][0].tolist() for e in examples] == [[0, 0], [2, 0], [62, 0]]
    batch = Collate(tokenizer.pad_id, transform.mean, transform.std)(examples)
    assert batch["image_features"].shape == (3, 3, 2)
    assert batch["text_features"].shape == (*batch["text_ids"].shape, 1)


def test_features_of_one_tower(dataset):
    dataset.features = OnlyText()
    assert dataset[0].keys() >= {"image", "text_ids", "text_features"}


def test_shuffled_images_have_the_features_of_the_image_shown(prepared, tokenizer, transform):
    dataset = VQAv2(prepared, ["vqav2_train"], tokenizer, transform, images="shuffled")
    true = VQAv2(prepared, ["vqav2_train"], tokenizer, transform)
    shown = dataset[8]["image"]
    dataset.features = Stored()
    picture = int(dataset[8]["image_features"][0, 0])
    assert torch.equal(true[4 * picture]["image"], shown)


def test_contents_are_the_stored_bytes(dataset, raw):
    assert dataset.pictures() == 80
    files = {sha256(path.read_bytes()).digest() for path in raw.glob("*2014/*.jpg")}
    assert {sha256(dataset.content(picture)).digest() for picture in range(80)} == files


def test_texts_are_the_distinct_ones(dataset):
    texts = list(dataset.texts())
    asked = [dataset.token_ids(i) for i in range(len(dataset))]
    assert len(texts) < len(asked)
    assert texts == [list(key) for key in dict.fromkeys(map(tuple, asked))]


def test_size_of_a_broken_image(dataset, monkeypatch):
    monkeypatch.setattr(dataset, "content", lambda picture, which: b"<html>")
    with pytest.raises(BadExampleError, match=r"vqav2_val\.arrow row 3 image_id 64: "):
        dataset.size(63)


def test_broken_manifest(prepared, tmp_path, tokenizer, transform):
    (tmp_path / "vqav2_val.arrow").write_bytes((prepared / "vqav2_val.arrow").read_bytes())
    (tmp_path / "manifest.json").write_text('{"version": ')
    with pytest.raises(UserError, match=r"manifest\.json: not valid JSON .*run `vltune prepare` again"):
        _ = VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform).fingerprint


def test_facts(prepared, tmp_path, tokenizer, transform, dataset):
    assert dataset.facts == {"answers": dataset.answers}
    (tmp_path / "vqav2_val.arrow").write_bytes((prepared / "vqav2_val.arrow").read_bytes())
    assert VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform).facts == {}
    assert isinstance(dataset, Reader)
