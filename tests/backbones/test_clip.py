"""CLIP's towers: what a text's end sees, chunks of texts, published sizes and costs.  tests/weights has the agreement with
transformers' CLIPModel."""

from math import log

import pytest
import tiny
import torch
from test_combinations import disturb

from vltune.backbones.clip import Clip
from vltune.costs.macs import example, macs
from vltune.errors import UserError
from vltune.methods.apt import APT
from vltune.methods.coop import CoOp
from vltune.methods.deep_prompt import DeepPrompt
from vltune.methods.lora import LoRA
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.model import Model
from vltune.sites import sites
from vltune.tasks.image_classification import ImageClassification
from vltune.tuning import Method

END = tiny.END_OF_TEXT
IDS = torch.tensor([[1, 7, 9, END, 0, 0], [1, 5, END, 0, 0, 0], [1, 3, 4, 8, 6, END]])


def released(patch_size):
    """OpenAI's sizes."""
    tower = {"layers": 12, "hidden": 2048}
    text = {**tower, "width": 512, "heads": 8, "vocabulary_size": 49408, "positions": 77, "end_of_text": 49407}
    image = {**tower, "width": 768, "heads": 12, "hidden": 3072, "patch_size": patch_size, "image_size": 224}
    return {"models": {"one": {"text": text, "image": image, "dim": 512}}, "model": "one"}


def in_place(method, where):
    method.sites_in = where
    return method


@torch.no_grad()
def test_a_text_is_its_first_end_whatever_follows():
    backbone, other = tiny.clip(), IDS.clone()
    other[0, 4:], other[1, 3:] = torch.tensor([END, 50]), torch.tensor([9, END, 2])
    together = backbone.embed_text(IDS)
    torch.testing.assert_close(backbone.embed_text(other), together, atol=1e-6, rtol=1e-5)
    for ids, length, features in zip(IDS, (4, 3, 6), together, strict=True):
        torch.testing.assert_close(backbone.embed_text(ids[None, :length])[0], features, atol=1e-6, rtol=1e-5)
        moved = ids.clone()
        moved[length - 2] = 99
        assert not torch.allclose(backbone.embed_text(moved[None])[0], features, atol=1e-3)


@pytest.mark.parametrize("method", [DeepPrompt, ShallowPrompt])
@torch.no_grad()
def test_the_end_of_a_text_sees_prompts(method):
    backbone = tiny.clip()
    before = backbone.embed_text(IDS)
    in_place(method(prompts=3), "text").attach(backbone)
    assert not torch.allclose(backbone.embed_text(IDS), before, atol=1e-3)


@pytest.mark.parametrize("where", ["text", "towers"])
@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_change_neither_texts_nor_gradients(chunk, where):
    gradients = []
    for size in (chunk, 128):
        backbone = tiny.clip(text_chunk=size)
        model = Model(backbone, tiny.classification(), in_place(LoRA(rank=2, dropout=0.0), where))
        disturb(model)
        image = tiny.batch(tiny.SQUARE)["image"].double()
        texts, images = model.double().train().backbone.embed_text(IDS), backbone.embed_image({"image": image})
        (images @ texts.T).square().sum().backward()
        gradients.append([texts.detach(), *(parameter.grad for parameter in model.method_parameters)])
    for one, other in zip(*gradients, strict=True):
        assert one.dtype == torch.float64
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_chunks_drop_out_the_same_when_they_are_computed_again():
    backbone = tiny.clip(text_chunk=1)
    tuning = in_place(LoRA(rank=2, dropout=0.5), "text").attach(backbone)
    for parameter in tuning.trained:
        torch.nn.init.normal_(parameter)
    backbone.train()
    torch.manual_seed(3)
    backbone.embed_text(IDS).square().sum().backward()
    found = [parameter.grad.clone() for parameter in tuning.trained]
    backbone.zero_grad()
    torch.manual_seed(3)
    torch.cat([backbone.embed_text(ids[None]) for ids in IDS]).square().sum().backward()
    for parameter, gradient in zip(tuning.trained, found, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)


def test_too_many_prompts_are_told_in_one_line():
    backbone = tiny.clip()
    in_place(CoOp(prompts=25), "text").attach(backbone)
    with pytest.raises(
        UserError, match="a text of 31 tokens, 25 of them prompts, exceeds the 30 positions of the backbone"
    ):
        backbone.embed_text(IDS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"model": "b8"}, "backbone.model=b8: must be one of tiny"),
        ({"activation": "silu"}, "backbone.activation=silu: must be one of gelu, quick_gelu, relu"),
    ],
)
def test_wrong_settings_are_told_in_one_line(setting, message):
    with pytest.raises(UserError) as error:
        tiny.clip(**setting)
    assert str(error.value) == message


@torch.no_grad()
def test_cosines_are_scaled_by_at_most_100():
    backbone, image, text = tiny.clip(), torch.randn(4, 20), torch.randn(3, 20)
    cosine = torch.cosine_similarity(image[:, None], text[None], dim=-1)
    torch.testing.assert_close(backbone.compare(3 * image, text), cosine / 0.07, atol=1e-5, rtol=1e-5)
    backbone.logit_scale.fill_(log(200))
    torch.testing.assert_close(backbone.compare(image, text), 100 * cosine, atol=1e-4, rtol=4e-4)
    own = torch.randn(4, 3, 20)
    expected = 100.03 * torch.cosine_similarity(image[:, None], own, dim=-1)
    torch.testing.assert_close(backbone.compare(image, own), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_cosines_are_compared_in_float32_under_autocast():
    """A thousand texts have ties among bfloat16's numbers."""
    backbone, image, text = tiny.clip(), torch.randn(4, 20), torch.randn(1000, 20)
    expected = backbone.compare(image, text)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(backbone.compare(image, text), expected)
        held = backbone.compare(image.bfloat16(), text.bfloat16())
    assert held.dtype == torch.float32
    assert all(len(row.unique()) > 990 for row in held)


def test_every_site_lies_in_a_tower():
    backbone = tiny.clip()
    assert {site.place for site in sites(backbone)} == {"text", "image"}
    assert backbone.shared_parameters() == backbone.fusion_parameters() == []


# Published: parameters by counting, and operations of two a multiply-accumulate, of one image and one text of 77 tokens,
# norms left out (open_clip's model profile): 41.09 and 14.78 G.
@pytest.mark.parametrize(("patch_size", "parameters", "giga"), [(16, 149_620_737, 41.09), (32, 151_277_313, 14.78)])
def test_published_sizes_and_costs(patch_size, parameters, giga):
    backbone = Clip(**released(patch_size))
    assert sum(parameter.numel() for parameter in backbone.parameters()) == parameters
    model = Model(backbone, ImageClassification(512, ["a", "b"], ["{}"]), Method())
    found = macs(model, example(77, (224, 224), 49408))
    tokens = (224 // patch_size) ** 2 + 1
    norms = 5 * (26 * tokens * 768 + 25 * 77 * 512)  # fvcore's five an element
    assert round(2 * (found["macs"] - norms) / 1e9, 2) == giga
    assert sum(part["macs"] for part in found["parts"].values()) == found["macs"]


@pytest.mark.parametrize(
    ("method", "where", "size"),
    [
        (lambda: LoRA(rank=2, roles=["query", "key", "value"]), "towers", 184_320),
        (lambda: APT(prompts=200, rank=4), "image", 1_916_940),
        (lambda: APT(prompts=200, rank=4), "text", 1_277_964),
        (lambda: CoOp(prompts=16), "text", 8_192),
    ],
)
def test_published_sizes_of_methods(method, where, size):
    with torch.device("meta"):
        tuning = in_place(method(), where).attach(Clip(**released(16)))
    assert sum(parameter.numel() for parameter in tuning.trained) == size


@pytest.mark.parametrize(
    ("where", "image", "text"), [("image", True, False), ("text", False, True), ("towers", True, True)]
)
def test_additional_macs_are_told_apart(where, image, text):
    model = Model(tiny.clip(), tiny.classification(), in_place(APT(prompts=5, rank=2), where))
    parts = macs(model, example(tiny.TEXT, (64, 64), tiny.VOCABULARY))["parts"]
    # Two blocks; 2 N P w a site, and P w once where its keys are folded already.
    assert parts["image"]["additional_macs"] == image * 2 * 2 * 17 * 5 * 40
    assert parts["class"]["additional_macs"] == text * 2 * 2 * tiny.TEXT * 5 * 24


def test_what_is_not_pretrained_starts_as_openais():
    torch.manual_seed(0)
    backbone = tiny.clip()
    text, image = backbone.text, backbone.image
    started = {
        text.word.weight: 0.02,
        text.position: 0.01,
        image.position: image.width**-0.5,
        image.class_token: image.width**-0.5,
        backbone.text_projection.weight: text.width**-0.5,
        backbone.image_projection.weight: image.width**-0.5,
    }
    for parameter, std in started.items():
        assert parameter.std().item() == pytest.approx(std, rel=0.4 if parameter.dim() == 1 else 0.1)
    assert backbone.logit_scale.exp().item() == pytest.approx(1 / 0.07)
