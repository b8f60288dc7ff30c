"""Loss and predictions of visual question answering, by hand."""

import pytest
import tiny
import torch

from vltune.tasks.vqa import VQA

ANSWERS = ["no", "red", "two", "yes"]


def batch(**more):
    """Of three questions: two answers, one, and none that is in the vocabulary."""
    found = {"ids": [7, 8, 9], "answer_labels": [[3, 1], [0], []], "answer_scores": [[1.0, 0.3], [0.6], []]}
    return found | {"labelled": [True, True, True]} | more


def test_the_loss_is_the_answers_sum_of_cross_entropies_averaged_over_questions():
    logits = 3 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    soft = torch.tensor([[0, 0.3, 0, 1], [0.6, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    right = torch.sigmoid(logits)
    by_hand = -(soft * right.log() + (1 - soft) * (1 - right).log()).sum(1).mean()
    assert VQA(4, 4, ANSWERS).loss(logits, batch()).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_prediction_scores_its_soft_label_and_none_where_no_answer_is_known():
    logits = torch.eye(4)[[1, 3, 2]]
    task = VQA(4, 4, ANSWERS)
    assert task.predictions(logits, batch(labelled=[True, True, False])) == [
        {"id": 7, "prediction": "red", "score": 0.3},
        {"id": 8, "prediction": "yes", "score": 0.0},
        {"id": 9, "prediction": "two", "score": None},
    ]
    assert task.predictions(logits, batch())[2]["score"] == 0.0  # its answers are rare ones


def test_the_head_is_twice_as_wide_as_the_backbone_and_starts_at_the_bias():
    task = VQA(6, tiny.WIDTH, ANSWERS, start_bias=-3.0)
    assert task.head[0].weight.shape == (2 * tiny.WIDTH, 6)
    assert task.head[-1].bias.tolist() == [-3.0] * 4
