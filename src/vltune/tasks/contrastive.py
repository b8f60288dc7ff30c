"""Contrastive pretraining of two towers (CLIP, Radford et al. 2021, arXiv 2103.00020), where a caption may hold of several
images of a batch: the target of an image is spread evenly over all captions that hold of it, that of a caption over all
its images.

    loss = (CE(logits, T / sum_texts T) + CE(logits^T, T^T / sum_images T)) / 2,   T[i, j] = caption j holds of image i

On shapes the common loss, with one true caption an image, learns colours and places within minutes, but hardly shapes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vltune.backbones.backbone import TWO_TOWERS, Backbone
from vltune.batch import Batch
from vltune.metrics.metric import Metric, Prediction
from vltune.tasks.task import RowColumn, Task


class Contrastive(Task):
    """What is scored: whether the nearest caption holds of an image, among the names of 30 objects for one object, enlarged
    and in its place, and among the captions of a batch for a scene."""

    needs = TWO_TOWERS
    generator = "contrastive.ContrastiveBatches"
    columns = (RowColumn("kind", "text"),)
    metrics = (
        Metric("zero_shot_enlarged", rows={"kind": "enlarged"}),
        Metric("zero_shot_in_place", primary=True, rows={"kind": "in_place"}),
        Metric("tr_r1", rows={"kind": "scene"}),
    )

    def forward(self, backbone: Backbone, batch: Batch) -> Tensor:
        """-> (B, C) logits"""
        return backbone.compare(backbone.embed_image(batch), backbone.embed_text(batch["text_ids"]))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return contrast(output, batch["true"])

    def predictions(self, output: Tensor, batch: Batch) -> list[Prediction]:
        best = output.argmax(1)
        right = batch["true"].gather(1, best[:, None])[:, 0]
        rows = zip(batch["ids"], best.tolist(), right.tolist(), strict=True)
        return [
            {"id": id, "prediction": f"caption {caption}", "kind": batch["kind"], "score": float(good)}
            for id, caption, good in rows
        ]


def contrast(logits: Tensor, true: Tensor) -> Tensor:
    """The loss.  true: (B, C) bool; every image and every caption has a match."""
    logits, true = logits.float(), true.float()
    of_images = F.cross_entropy(logits, true / true.sum(1, keepdim=True))
    of_texts = F.cross_entropy(logits.t(), (true / true.sum(0)).t())
    return (of_images + of_texts) / 2
