"""Retrieval: a score for every caption, the loss among false ones, recall from prediction rows."""

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from vltune.errors import UserError
from vltune.tasks.retrieval import Retrieval
from vltune.weights.heads import start_from_matching

FALSE = 15


@pytest.mark.parametrize("backbone", [tiny.vilt(), tiny.meter()], ids=["vilt", "meter"])
def test_the_true_caption_is_scored_first_and_false_ones_with_their_image(monkeypatch, backbone):
    batch, encoded = tiny.batch(tiny.SQUARE), []
    batch["false_text_ids"], batch["false_text_mask"] = tiny.texts((5, 9, 8) * FALSE, seed=1)
    encode_image = backbone.encode_image
    monkeypatch.setattr(backbone, "encode_image", lambda b: encoded.append(len(b["image"])) or encode_image(b))
    task = Retrieval(backbone.pooled_width)
    scores = task(backbone, batch)
    assert scores.shape == (3, 1 + FALSE)
    assert encoded == [3]
    true = {key: value for key, value in batch.items() if not key.startswith("false_")}
    torch.testing.assert_close(scores[:, :1], task(backbone, true))
    for image in range(3):
        pairs = {key: batch[key][[image] * FALSE] for key in ("image", "image_size")}
        for key in ("text_ids", "text_mask"):
            pairs[key] = batch[f"false_{key}"][image * FALSE : (image + 1) * FALSE]
        torch.testing.assert_close(scores[image, 1:], task(backbone, pairs)[:, 0], atol=1e-6, rtol=0)


@torch.no_grad()
def test_scores_are_float32_under_autocast():
    backbone, batch = tiny.vilt(), tiny.batch(tiny.SQUARE)
    with torch.autocast("cpu", torch.bfloat16):
        assert Retrieval(backbone.pooled_width)(backbone, batch).dtype == torch.float32


def test_the_loss_is_cross_entropy_of_the_true_caption():
    task = Retrieval(tiny.WIDTH)
    torch.testing.assert_close(task.loss(torch.zeros(4, 1 + FALSE), {}), torch.tensor(16.0).log())
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    expected = -np.log([np.exp(2) / (np.exp(2) + np.e + 1), 1 / (2 + np.exp(3))]).mean()
    assert float(task.loss(scores, {})) == pytest.approx(expected)


# Six images with two captions each but the last, which has one; in thirds: images 0-1, 2-3, 4-5.
OWNER = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5])
IMAGES, CAPTIONS = range(10, 16), range(20, 31)


def scores():
    """Everything right but for caption 21 (image 11 before its own 10) and image 14 (caption 30 before its own)."""
    scores = torch.from_numpy((np.arange(6)[:, None] == OWNER).astype(np.float32))
    scores[1, 1] = 1.5
    scores[4, 10], scores[5, 10] = 2.0, 3.0
    return scores


def test_rows_name_what_came_first_and_where_the_true_match_came():
    rows = Retrieval(4).rows(scores(), OWNER, IMAGES, CAPTIONS)
    assert [row["id"] for row in rows] == [*CAPTIONS, *IMAGES]
    assert rows[0] == {"id": 20, "prediction": "image 10", "target": "image", "fold": None, "score": 1.0}
    assert rows[1] == {"id": 21, "prediction": "image 11", "target": "image", "fold": None, "score": 0.5}
    assert rows[11 + 1] == {"id": 11, "prediction": "caption 21", "target": "caption", "fold": None, "score": 0.5}
    assert rows[11 + 4] == {"id": 14, "prediction": "caption 30", "target": "caption", "fold": None, "score": 0.5}
    assert sum(row["score"] == 1 for row in rows) == 14


def test_recall_at_1_5_and_10_both_ways():
    task = Retrieval(4)
    places = {"image": [1, 2, 5, 6, 10, 11], "caption": [1, 1, 5, 11]}
    rows = [{"id": 0, "target": what, "fold": None, "score": 1 / place} for what in places for place in places[what]]
    expected = {"ir_r1": 100 / 6, "ir_r5": 50, "ir_r10": 500 / 6, "tr_r1": 50, "tr_r5": 75, "tr_r10": 75}
    assert task.figures(rows) == pytest.approx(expected | {"r1": (100 / 6 + 50) / 2})
    rounded = [row | {"score": float(np.float32(row["score"]))} for row in rows]  # as predictions are stored
    assert task.figures(rounded) == task.figures(rows)


def test_folds_are_consecutive_images_with_their_captions():
    rows = Retrieval(4, folds=3).rows(scores(), OWNER, IMAGES, CAPTIONS)
    last = [row for row in rows if row["fold"] == 3]
    assert [row["id"] for row in last] == [28, 29, 30, 14, 15]
    assert last[3] == {"id": 14, "prediction": "caption 30", "target": "caption", "fold": 3, "score": 0.5}
    figures = Retrieval(4, folds=3).figures(rows)
    assert {name: value for name, value in figures.items() if "_1k" not in name} == Retrieval(4).figures(rows[:17])
    assert figures["ir_r1"] == pytest.approx(100 * 10 / 11)
    assert figures["ir_r1_1k"] == pytest.approx((75 + 100 + 100) / 3)
    assert figures["tr_r1_1k"] == pytest.approx((50 + 100 + 50) / 3)
    assert figures["r1_1k"] == pytest.approx((figures["ir_r1_1k"] + figures["tr_r1_1k"]) / 2)
    assert len(figures) == 14


def test_images_that_folds_do_not_divide_are_in_one_of_them_each():
    rows = Retrieval(4, folds=4).rows(scores(), OWNER, IMAGES, CAPTIONS)
    of_images = [(row["fold"], row["id"]) for row in rows if row["fold"] and row["target"] == "caption"]
    assert of_images == list(zip([1, 1, 2, 2, 3, 4], IMAGES, strict=True))


def test_wrong_settings_are_told_in_one_line():
    with pytest.raises(UserError, match=r"task\.start=zero: must be matching or random"):
        Retrieval(4, start="zero")
    with pytest.raises(UserError, match=r"task\.folds=7 exceeds the 6 images"):
        Retrieval(4, folds=7).rows(scores(), OWNER, IMAGES, CAPTIONS)


@pytest.mark.parametrize("layer", ["itm_score.fc", "task.match"])
def test_the_head_starts_from_the_matching_heads_row_for_a_match(tmp_path, layer):
    matching = {f"{layer}.weight": torch.randn(2, 4), f"{layer}.bias": torch.randn(2)}
    save_file(matching | {"token_type.weight": torch.zeros(2, 4)}, tmp_path / "pretrained.safetensors")
    task = Retrieval(4)
    start_from_matching(task, tmp_path / "pretrained.safetensors")
    assert torch.equal(task.head.weight, matching[f"{layer}.weight"][1:])
    assert torch.equal(task.head.bias, matching[f"{layer}.bias"][1:])


def test_a_file_without_a_matching_head_is_told(tmp_path):
    save_file({"token_type.weight": torch.zeros(2, 4)}, tmp_path / "pretrained.safetensors")
    with pytest.raises(UserError, match=r"has no matching head .* or task\.start=random"):
        start_from_matching(Retrieval(4), tmp_path / "pretrained.safetensors")
