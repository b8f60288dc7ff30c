import math
from types import SimpleNamespace

import pytest
import torch

from vltune.metrics.metric import figures
from vltune.tasks.contrastive import Contrastive


def by_hand(logits, true):
    """The loss, pair by pair."""
    of_images = [
        sum(-math.log(row[j].exp() / row.exp().sum()) for j in range(len(row)) if good[j]) / sum(good)
        for row, good in zip(logits, true.tolist(), strict=True)
    ]
    of_texts = [
        sum(-math.log(column[i].exp() / column.exp().sum()) for i in range(len(column)) if good[i]) / sum(good)
        for column, good in zip(logits.t(), true.t().tolist(), strict=True)
    ]
    return (sum(of_images) / len(of_images) + sum(of_texts) / len(of_texts)) / 2


def test_every_true_pair_is_a_target():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    true = torch.eye(5, dtype=torch.bool)
    true[0, 3] = true[4, 1] = true[2, 1] = True
    assert Contrastive().loss(logits, {"true": true}).item() == pytest.approx(by_hand(logits, true), rel=1e-5)


def test_of_one_caption_an_image_it_is_clips():
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    target = torch.arange(6)
    expected = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.t(), target)
    ) / 2
    torch.testing.assert_close(Contrastive().loss(logits, {"true": torch.eye(6, dtype=torch.bool)}), expected)


def test_a_row_is_right_where_the_nearest_caption_holds():
    task = Contrastive()
    true = torch.tensor([[1, 0, 1], [0, 1, 0]], dtype=torch.bool)
    output = torch.tensor([[0.1, 0.2, 0.9], [0.8, 0.5, 0.1]])
    rows = task.predictions(output, {"ids": [7, 8], "true": true, "kind": "scene"})
    assert [(row["id"], row["prediction"], row["score"]) for row in rows] == [
        (7, "caption 2", 1.0),
        (8, "caption 0", 0.0),
    ]
    assert figures(task.metrics, rows) == {"tr_r1": 50.0}


def test_captions_are_compared_with_images():
    backbone = SimpleNamespace(
        embed_image=lambda batch: batch["image"], embed_text=lambda ids: ids.float(), compare=lambda a, b: a @ b.t()
    )
    batch = {"image": torch.eye(2), "text_ids": torch.tensor([[1, 2], [3, 4], [5, 6]])}
    assert Contrastive()(backbone, batch).tolist() == [[1, 3, 5], [2, 4, 6]]
