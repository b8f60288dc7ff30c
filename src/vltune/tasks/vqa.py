"""Visual question answering as classification (VQAv2, Goyal et al. 2017).

Loss: binary cross-entropy x number of answers against soft targets, as in ViLT.  Score: by these labels, which follow the
official 10-choose-9 rule; docs/answers.md says where the official score differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.batch import Batch
from vltune.errors import UserError
from vltune.metrics.metric import Metric, Prediction
from vltune.metrics.vqa import NUMBERED
from vltune.nn.heads import classifier
from vltune.tasks.task import Task

IMAGE = 1000  # a question's id // 1000 is its image's


class VQA(Task):
    """in_width: of the pooled vector, width: of the backbone.  answers: the answer vocabulary, in the order of the data's
    labels; 3,129 on the real data.  start_bias: of every answer's logit; 0 as published.  Most answers are wrong, and a
    short training cannot move a bias from 0 to there.  Where `answers` are their own numbers, as of data without a
    vocabulary, no server takes the predictions."""

    metrics = (Metric("vqa_score", primary=True, cluster=IMAGE, right=0.5),)
    submission = "answers"

    def __init__(self, in_width: int, width: int, answers: Sequence[str], start_bias: float = 0.0):
        super().__init__()
        self.answers = list(answers)
        if self.answers == [str(number) for number in range(len(self.answers))]:
            self.submission = NUMBERED
        self.head = classifier(in_width, 2 * width, len(self.answers))
        nn.init.constant_(self.head[-1].bias, start_bias)

    @classmethod
    def numbered_by(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("answers",)

    def forward(self, backbone: nn.Module, batch: Batch) -> Tensor:
        """-> (B, answers) logits"""
        return self.head(backbone(batch).pooled)

    def targets(self, batch: Batch, like: Tensor) -> Tensor:
        """(B, answers): the soft score of every answer that an annotator gave, else 0."""
        labels, scores = batch["answer_labels"], batch["answer_scores"]
        rows = [row for row, of_row in enumerate(labels) for _ in of_row]
        if (most := max((label for of_row in labels for label in of_row), default=0)) >= len(self.answers):
            raise UserError(
                f"an answer has the label {most} where {len(self.answers)} are known: dataset.answers is too small"
            )
        targets = torch.zeros(len(labels), len(self.answers))
        targets[rows, [label for of_row in labels for label in of_row]] = torch.tensor(
            [score for of_row in scores for score in of_row], dtype=torch.float32
        )
        return targets.to(like.device)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        targets = self.targets(batch, output)
        return F.binary_cross_entropy_with_logits(output.float(), targets) * targets.shape[1]

    def predictions(self, output: Tensor, batch: Batch) -> list[Prediction]:
        """The label's soft score follows the official rule, 0.3, 0.6, 0.9, 1 for 1, 2, 3, 4 of ten annotators, of whom it
        counts those who gave the label as it stands; `vltune score` normalises both, as the official program does.

        A question none of whose answers is in the vocabulary scores 0; only those of a split without answers have none."""
        rows = zip(
            batch["ids"],
            output.argmax(1).tolist(),
            batch["answer_labels"],
            batch["answer_scores"],
            batch["labelled"],
            strict=True,
        )
        return [
            {
                "id": id,
                "prediction": self.answers[label],
                "score": dict(zip(labels, scores, strict=True)).get(label, 0.0) if labelled else None,
            }
            for id, label, labels, scores, labelled in rows
        ]
