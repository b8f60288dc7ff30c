"""Reasoning about a pair of images (NLVR2, Suhr et al. 2019): is a statement true of the two?

Each image goes through the backbone with the statement, with token types 1 and 2, and both pooled vectors together are
classified, as in ViLT and METER.  Consistency, as the official evaluation has it, counts the statements that are judged
right of all their image pairs; pair consistency the image pairs of which all statements are judged right.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from vltune.tasks.classification import Classification


class NLVR2(Classification):
    images = ("image_0", "image_1")

    def __init__(self, in_width: int, width: int):
        super().__init__(2 * in_width, 2 * width, ("False", "True"))

    def forward(self, backbone: nn.Module, batch: dict) -> Tensor:
        """-> (B, 2) logits; the statement is encoded once."""
        text = backbone.encode_text(batch)
        pooled = [
            backbone.fuse(text, backbone.encode_image(batch, image, token_type)).pooled
            for token_type, image in enumerate(self.images, start=1)
        ]
        return self.head(torch.cat(pooled, dim=1))

    def predictions(self, output: Tensor, batch: dict) -> list[dict]:
        rows = zip(super().predictions(output, batch), batch["sentence"], batch["pair"], strict=True)
        return [row | {"sentence": sentence, "pair": pair} for row, sentence, pair in rows]

    def metrics(self, predictions: list[dict]) -> dict[str, float]:
        return super().metrics(predictions) | {
            "consistency": all_right(predictions, "sentence"),
            "pair_consistency": all_right(predictions, "pair"),
        }


def all_right(predictions: list[dict], key: str) -> float:
    """In percent, the groups of equal `key` in which every prediction is right."""
    right = defaultdict(list)
    for row in predictions:
        right[row[key]].append(row["score"])
    return 100 * sum(map(all, right.values())) / len(right)
