"""Choosing one of a few labels: what NLVR2 and SNLI-VE share."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vltune.batch import Batch
from vltune.metrics.metric import Metric, Prediction
from vltune.nn.heads import classifier
from vltune.tasks.task import Task


class Classification(Task):
    """labels: their names, in the order of the data's numbers.  in_width: of the features that the head reads."""

    metrics = (Metric("accuracy", primary=True, signs=True),)

    def __init__(self, in_width: int, hidden: int, labels: Sequence[str]):
        super().__init__()
        self.labels = list(labels)
        self.head = classifier(in_width, hidden, len(self.labels))

    def forward(self, backbone: nn.Module, batch: Batch) -> Tensor:
        """-> (B, labels) logits"""
        return self.head(backbone(batch).pooled)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(output.float(), batch["label"])

    def predictions(self, output: Tensor, batch: Batch) -> list[Prediction]:
        rows = zip(batch["ids"], output.argmax(1).tolist(), batch["label"].tolist(), strict=True)
        return [{"id": id, "prediction": self.labels[label], "score": float(label == true)} for id, label, true in rows]
