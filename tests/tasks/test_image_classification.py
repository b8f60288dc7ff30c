"""Classes by their names: prompts, halves, classifiers, and what is computed once."""

import math

import pytest
import tiny
import torch
import torch.nn.functional as F
from test_combinations import disturb

from vltune.errors import UserError
from vltune.methods.full import Full
from vltune.methods.lora import LoRA
from vltune.model import Model
from vltune.tasks.image_classification import ImageClassification, apart, base_classes
from vltune.tuning import Method

BATCH = tiny.batch(tiny.SQUARE)


def model(method=None, where="towers", backbone=None, **more):
    method = method or Method()
    method.sites_in = where
    backbone = backbone or tiny.clip()
    task = tiny.classification(**more)
    task.begin(backbone)
    return Model(backbone, task, method).eval()


@torch.no_grad()
def test_zero_shot_is_the_cosine_with_each_prompt_alone():
    found = model()
    backbone, words = found.backbone, tiny.Words()
    image = F.normalize(backbone.embed_image(BATCH), dim=-1)
    text = [backbone.embed_text(torch.tensor([words(f"a photo of a {name}")])) for name in tiny.CLASSES]
    expected = image @ F.normalize(torch.cat(text), dim=-1).t() / 0.07
    torch.testing.assert_close(found(BATCH), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_ensemble_is_the_mean_of_normalised_embeddings():
    templates = ["a photo of a {}", "{}", "the {} one"]
    backbone = tiny.clip()
    task = ImageClassification(20, tiny.CLASSES, templates, tiny.Words()).eval()
    each = [ImageClassification(20, tiny.CLASSES, [template], tiny.Words()).eval() for template in templates]
    rows = torch.stack([one.class_features(backbone, None, 3) for one in each]).mean(0)
    torch.testing.assert_close(task.class_features(backbone, None, 3), F.normalize(rows, dim=-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("count", "base"), [(2, 1), (3, 2), (10, 5), (37, 19), (101, 51)])
def test_the_base_is_the_first_half(count, base):
    assert base_classes(count) == base


def test_of_one_class_nothing_is_left_to_know_and_no_half_is_new():
    several, one = (ImageClassification(20, classes, ["{}"], tiny.Words()) for classes in (tiny.CLASSES, ["cat"]))
    assert several.chance_loss == pytest.approx(math.log(3))
    assert one.chance_loss is None  # a loss of 0 is no failed start
    assert ImageClassification(20, ["cat", "dog"], ["{}"], tiny.Words(), protocol="base_to_new").chance_loss is None
    with pytest.raises(UserError, match=r"^task\.protocol=base_to_new: there is one class, and no new half; take few_"):
        ImageClassification(20, ["cat"], ["{}"], tiny.Words(), protocol="base_to_new")


@torch.no_grad()
def test_each_half_is_told_apart_by_itself_and_h_is_their_harmonic_mean():
    found = model(protocol="base_to_new")
    assert found.train()(BATCH).shape == (3, 2)
    output = found.eval()(BATCH)
    assert output.shape == (3, 3)
    labels = torch.tensor([0, 1, 2])
    rows = found.task.predictions(output, {"ids": [7, 8, 9], "label": labels})
    assert [row["half"] for row in rows] == ["base", "base", "new"]
    assert all(row["prediction"] in tiny.CLASSES[:2] for row in rows[:2])
    assert rows[2]["prediction"] == tiny.CLASSES[2]
    assert rows[2]["confidence"] == rows[2]["score"] == 1.0  # among one class
    rows = [dict(row, score=score) for row, score in zip(rows, (1.0, 0.0, 1.0), strict=True)]
    figures = found.task.figures(rows)
    assert figures["base"] == 50.0
    assert figures["new"] == 100.0
    assert figures["h"] == pytest.approx(2 / (1 / 50 + 1 / 100))


def test_what_is_scored_is_what_rows_say():
    found = model()
    output = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 1.0, 0.0]])
    rows = found.task.predictions(output, {"ids": [0, 1, 2], "label": torch.tensor([0, 1, 0])})
    assert [row["score"] for row in rows] == [1.0, 1.0, 0.0]
    figures = found.task.figures(rows)
    assert figures["accuracy"] == pytest.approx(200 / 3)
    assert figures["mean_per_class"] == pytest.approx(75.0)  # half of red, all of green
    chance = output.softmax(1).max(1).values.tolist()
    expected = (1 - chance[0]) + (1 - chance[1]) + chance[2]  # in bins of their own
    assert figures["calibration_error"] == pytest.approx(100 * expected / 3, rel=1e-5)


def test_classes_of_one_name_are_scored_apart():
    task = model().task
    task.called = apart(["crane", "maillot", "maillot"])
    output = torch.tensor([[3.0, 0.0, 0.0]]).repeat(3, 1)
    rows = task.predictions(output, {"ids": [0, 1, 2], "label": torch.tensor([0, 1, 2])})
    assert [row["class"] for row in rows] == ["crane", "maillot (1)", "maillot (2)"]
    assert task.figures(rows)["mean_per_class"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("classifier", ["linear", "linear_from_text"])
@pytest.mark.parametrize("method", [LoRA(rank=2), Full()])
def test_a_linear_layer_trains_nothing_of_what_it_does_not_read(classifier, method):
    found = model(method, "image", classifier=classifier).train()
    labelled = BATCH | {"label": torch.tensor([0, 1, 2])}
    disturb(found)
    found.task.loss(found(labelled), labelled).backward()
    assert found.method_parameters
    assert {id(p) for p in found.parameters() if p.requires_grad} == {
        id(p) for p in found.parameters() if p.grad is not None
    }


@pytest.mark.parametrize("where", ["text", "towers"])
def test_a_method_in_a_text_tower_that_a_linear_layer_does_not_read_is_refused(where):
    with pytest.raises(UserError, match=r"LoRA would train the text part of Clip, .* choose another method\.sites_in"):
        model(LoRA(rank=2), where, classifier="linear")


@torch.no_grad()
def test_a_head_that_starts_from_the_classes_predicts_as_they_do():
    zero_shot, started = model(), model(classifier="linear_from_text")
    torch.testing.assert_close(started(BATCH), zero_shot(BATCH), atol=1e-5, rtol=1e-5)
    assert sum(parameter.numel() for parameter in started.head_parameters) == 3 * 20 + 3


@torch.no_grad()
def test_a_head_starts_from_the_classes_whatever_is_added_to_all_logits(monkeypatch):
    """SigLIP's compare has a bias beside its scale, which tells no class from another."""
    before = model(classifier="linear_from_text")
    of_clip = type(before.backbone).compare
    monkeypatch.setattr(type(before.backbone), "compare", lambda *given: of_clip(*given) - 10)
    started = model(classifier="linear_from_text")
    torch.testing.assert_close(started.task.head.weight, before.task.head.weight, atol=0, rtol=1e-5)


@torch.no_grad()
def test_a_linear_layer_of_base_classes_scores_no_new_one():
    found = model(classifier="linear_from_text", protocol="base_to_new")
    rows = found.task.predictions(found(BATCH), {"ids": [7, 8, 9], "label": torch.tensor([0, 1, 2])})
    assert [row["score"] is None for row in rows] == [False, False, True]
    assert {row["prediction"] for row in rows} <= {*tiny.CLASSES[:2]}
    figures = found.task.figures(rows)
    assert "base" in figures
    assert figures.keys().isdisjoint({"new", "h"})


@torch.no_grad()
def test_a_cache_is_its_equation():
    found = model(classifier="cache", shots=1, alpha=2.0, beta=3.0)
    batch = BATCH | {"label": torch.tensor([2, 0, 1])}
    found.task.look(found.backbone, [batch])
    image = F.normalize(found.backbone.embed_image(batch), dim=-1)
    expected = model()(batch) + 2.0 * (-3.0 * (1 - image @ image.t())).exp() @ F.one_hot(batch["label"], 3).float()
    torch.testing.assert_close(found(batch), expected, atol=1e-5, rtol=1e-5)
    other = model(classifier="cache", shots=1, alpha=2.0, beta=3.0)
    other.load_tuned(found.tuned_state())
    assert torch.equal(other(batch), found(batch))
    assert not found.head_parameters
    trained = model(classifier="cache", shots=1, cache_trained=True)
    assert [parameter.shape for parameter in trained.head_parameters] == [(3, 20)]


@pytest.mark.parametrize("where", ["image", "text"])
def test_classes_are_computed_once_where_nothing_changes_them(where, monkeypatch):
    found, calls = model(LoRA(rank=2), where), []
    disturb(found)
    embed = type(found.backbone).embed_text
    monkeypatch.setattr(type(found.backbone), "embed_text", lambda *given: calls.append(0) or embed(*given))
    found.train()
    for _ in range(2):
        found.task.loss(found(BATCH), BATCH).backward()
    assert len(calls) == (1 if where == "image" else 2)
    found.eval()
    with torch.no_grad(), found.settled():
        first, again = found(BATCH), found(BATCH)
    assert torch.equal(first, again)
    assert len(calls) == (1 if where == "image" else 3)
    with torch.no_grad():
        for parameter in found.method_parameters:
            parameter.add_(0.5)
        assert not torch.allclose(found(BATCH), first, atol=1e-3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"protocol": "one_shot"}, "task.protocol=one_shot: must be one of few_shot, base_to_new, full"),
        ({"classifier": "knn"}, "task.classifier=knn: must be one of text, linear, linear_from_text, cache"),
        ({"classifier": "cache", "protocol": "full"}, "task.classifier=cache: holds every training image"),
    ],
)
def test_wrong_settings_are_told_in_one_line(setting, message):
    with pytest.raises(UserError) as error:
        tiny.classification(**setting)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_prompt_that_is_too_long_is_told():
    with pytest.raises(UserError, match="'a b c d e f g h i j red': has 12 tokens or more"):
        ImageClassification(20, tiny.CLASSES, ["a b c d e f g h i j {}"], tiny.Words())


@pytest.mark.parametrize("method", [LoRA(rank=2), Full()])
def test_a_cache_of_images_that_are_tuned_is_refused(method):
    with pytest.raises(
        UserError, match=r"task\.classifier=cache: holds what images are to the tower before it is tuned"
    ):
        model(method, "image", classifier="cache", shots=1)
    model(LoRA(rank=2), "text", classifier="cache", shots=1)


def test_a_cache_with_another_number_of_images_is_told():
    found = model(classifier="cache", shots=2)
    with pytest.raises(UserError, match="3 training images can be read"):
        found.task.look(found.backbone, [BATCH])


def test_chance_is_among_the_classes_that_are_trained():
    assert tiny.classification(protocol="base_to_new").chance_loss == pytest.approx(math.log(2))


@torch.no_grad()
def test_an_image_is_of_its_own_half_whatever_it_is_taken_for():
    found = model(classifier="linear_from_text", protocol="base_to_new")
    rows = found.task.predictions(torch.zeros(3, 2), {"ids": [7, 8, 9], "label": torch.tensor([0, 1, 2])})
    assert [row["half"] for row in rows] == ["base", "base", "new"]
