"""Reasoning about a pair of images (NLVR2, Suhr et al. 2019): is a statement true of the two?

Each image goes through the backbone with the statement, with token types 1 and 2, and both pooled vectors together are
classified, as in ViLT and METER.  Consistency, as the official evaluation has it, counts the statements that are judged
right of all their image pairs; pair consistency the image pairs of which all statements are judged right.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vltune.batch import Batch
from vltune.metrics.metric import Metric, Prediction
from vltune.tasks.classification import Classification
from vltune.tasks.task import RowColumn


class NLVR2(Classification):
    images = ("image_0", "image_1")
    columns = (RowColumn("sentence", "number"), RowColumn("pair", "text"))
    metrics = (
        *Classification.metrics,
        Metric("consistency", every="sentence"),
        Metric("pair_consistency", every="pair"),
    )

    def __init__(self, in_width: int, width: int):
        super().__init__(2 * in_width, 2 * width, ("False", "True"))

    def forward(self, backbone: nn.Module, batch: Batch) -> Tensor:
        """-> (B, 2) logits; the statement is encoded once."""
        text = backbone.encode_text(batch)
        pooled = [
            backbone.fuse(text, backbone.encode_image(batch, image, token_type)).pooled
            for token_type, image in enumerate(self.images, start=1)
        ]
        return self.head(torch.cat(pooled, dim=1))

    def predictions(self, output: Tensor, batch: Batch) -> list[Prediction]:
        rows = zip(super().predictions(output, batch), batch["sentence"], batch["pair"], strict=True)
        return [row | {"sentence": sentence, "pair": pair} for row, sentence, pair in rows]
