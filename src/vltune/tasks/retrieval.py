"""Image-text retrieval, on Karpathy's splits of Flickr30K and COCO (Karpathy and Fei-Fei 2015, arXiv 1412.2306).

Loss: cross-entropy of the true caption among false ones, by one score a pair, 15 false ones as in ViLT (Kim et al. 2021,
arXiv 2102.03334).  Recall at K: how often the true match is among the K best of the whole split, which every image is
scored with every caption for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.backbones.backbone import Features
from vltune.batch import Batch
from vltune.errors import UserError
from vltune.metrics.metric import Metric, Prediction
from vltune.metrics.recall import ranks
from vltune.nn.heads import bert_init
from vltune.nn.whole import in_float32
from vltune.tasks.task import RowColumn, Task

RECALL_AT = (1, 5, 10)


def recalls(suffix: str = "", **which: Any) -> tuple[Metric, ...]:
    """Recall at K of image (`ir_`) and text retrieval (`tr_`), and the mean of both at 1."""
    ways = (("ir", "image", "an image for a caption"), ("tr", "caption", "a caption for an image"))
    means = tuple(f"{way}_r1{suffix}" for way, *_ in ways)
    return (
        *(
            Metric(
                f"{way}_r{k}{suffix}",
                rows={"target": target} | ({} if "parts" in which else {"fold": None}),
                within=k,
                title=title,
                **which,
            )
            for way, target, title in ways
            for k in RECALL_AT
        ),
        Metric(f"r1{suffix}", primary=not suffix, mean_of=means),
    )


class Ranking(Task):
    """What every image's score with every caption of a split says.  folds: recall is also the mean over so many consecutive
    parts of the images, each with its own captions, 5 for COCO's 1K test."""

    columns = (RowColumn("target", "text"), RowColumn("fold", "number"))
    metrics = recalls()

    def __init__(self, folds: int = 1):
        super().__init__()
        self.folds = folds
        if folds > 1:
            self.metrics = (*recalls(), *recalls("_1k", parts="fold"))

    def check_folds(self, images: int) -> None:
        """UserError where a split has fewer images than folds."""
        if self.folds > images:
            raise UserError(f"task.folds={self.folds} exceeds the {images} images of the split; make it smaller")

    def rows(
        self, scores: Tensor, owner: np.ndarray, image_ids: Sequence[int], caption_ids: Sequence[int]
    ) -> list[Prediction]:
        """Prediction rows of a split: one a caption, then one an image, then with folds those of each fold.

        scores: (images, captions).  owner: (captions,) int64, the number of each caption's image.
        A row's `target` is what was retrieved, `image` or `caption`, and `prediction` which was placed first, such as
        `image 12`; its `score` is 1 / the place of the true match, so that recall at K is the share of rows with 1 / K or
        more.  `fold` counts from 1, and is None in rows of the whole split.
        """
        owner, image_ids, caption_ids = (torch.as_tensor(numbers) for numbers in (owner, image_ids, caption_ids))
        self.check_folds(len(scores))
        rows = placed(scores, owner, image_ids, caption_ids)
        for fold, images in enumerate(torch.arange(len(scores)).tensor_split(self.folds) if self.folds > 1 else (), 1):
            captions = torch.isin(owner, images)
            part = scores[images[0] : images[-1] + 1][:, captions]
            of_fold = owner[captions] - images[0], image_ids[images], caption_ids[captions]
            rows += placed(part, *of_fold, fold)
        return rows


class Retrieval(Ranking):
    """start: of the head, from the pretrained `matching` head or `random`.  folds: see `Ranking`."""

    evaluator = "all_pairs"

    def __init__(self, in_width: int, start: str = "matching", folds: int = 1):
        super().__init__(folds)
        if start not in ("matching", "random"):
            raise UserError(f"task.start={start}: must be matching or random")
        self.start = start
        self.head = nn.Linear(in_width, 1).apply(bert_init)

    def forward(self, backbone: nn.Module, batch: Batch) -> Tensor:
        """-> (B, 1 + K) scores, the true caption's first.  batch: `false_text_ids` and `false_text_mask` (B * K, T), each
        image's K false captions in a row, or none of them.  An image is encoded once for all of its captions."""
        image = backbone.encode_image(batch)
        scores = self.score(backbone.fuse(backbone.encode_text(batch), image))[:, None]
        if "false_text_ids" not in batch:
            return scores
        false = len(batch["false_text_ids"]) // len(image)
        false_scores = self.score(backbone.fuse(backbone.encode_text(batch, "false_text"), image.repeat(false)))
        return torch.cat([scores, false_scores.unflatten(0, (-1, false))], dim=1)

    def score(self, features: Features) -> Tensor:
        """-> (B,), how well each text and its image match, in float32 under autocast too: bfloat16 has ties among them"""
        head, pooled = self.head, features.pooled.float()
        with in_float32(pooled.device):
            return F.linear(pooled, head.weight.float(), head.bias.float())[:, 0]

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(output.float(), output.new_zeros(len(output), dtype=torch.long))


def placed(
    scores: Tensor, owner: Tensor, image_ids: Tensor, caption_ids: Tensor, fold: int | None = None
) -> list[Prediction]:
    of_image, of_caption = ranks(scores, owner)
    return [
        {"id": id, "prediction": f"{target} {first}", "target": target, "fold": fold, "score": 1 / place}
        for target, ids, found, places in (
            ("image", caption_ids, image_ids[scores.argmax(0)], of_image),
            ("caption", image_ids, caption_ids[scores.argmax(1)], of_caption),
        )
        for id, first, place in zip(ids.tolist(), found.tolist(), places.tolist(), strict=True)
    ]
