"""Pretraining on image-caption pairs: masked words and image-text matching (ViLT), and three auxiliary losses.

On shapes, words and matching alone hardly start to ground within minutes.  Three further losses stand in for the ImageNet
initialisation that the real ViLT starts from, and for its millions of captions: each patch tells the shape, colour and
size of the object that it shows, each word whether it is the false one of a caption, and the class token which words are
masked.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.batch import Batch
from vltune.errors import UserError
from vltune.metrics.metric import Metric, Prediction
from vltune.nn.heads import bert_init
from vltune.tasks.task import RowColumn, Task

IGNORE = -100


def bag(ids: Tensor, chosen: Tensor, size: int) -> Tensor:
    """ids (B, T), chosen (B, T) bool -> (B, size): 1 for every word that is chosen"""
    return torch.zeros(len(ids), size, device=ids.device).scatter_add_(1, ids, chosen.float()).clamp(max=1)


class Pretraining(Task):
    """in_width: of the pooled vector, width: of the backbone's tokens; attributes: how many values each patch attribute
    has, background included; bag_weight: of the loss on the class token's bag of masked words.

    Half of the true pairs have `mask_rate` of their words masked and serve only the masked-word loss; the others serve
    the matching and word losses, so that no mask gives a true pair away.
    """

    generator = "pretraining.PretrainingBatches"
    columns = (RowColumn("kind", "text"),)
    metrics = (
        Metric("match_accuracy", primary=True, rows={"kind": "match"}),
        Metric("masked_word_accuracy", rows={"kind": "word"}),
    )

    def __init__(
        self,
        in_width: int,
        width: int,
        vocabulary_size: int,
        mask_id: int,
        attributes: Sequence[int],
        mask_rate: float = 0.4,
        bag_weight: float = 0.2,
    ):
        super().__init__()
        self.bag_weight = bag_weight
        self.mask_id, self.mask_rate, self.attributes = mask_id, mask_rate, list(attributes)
        self.word = nn.Linear(width, vocabulary_size)
        self.words = nn.Linear(in_width, vocabulary_size)
        self.match = nn.Linear(in_width, 2)
        self.false_word = nn.Linear(width, 2)
        self.attribute = nn.Linear(width, sum(attributes))
        self.apply(bert_init)

    def forward(self, backbone: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """UserError where the backbone gives no tokens: of the text, and of the image a class token and its patches."""
        ids, masked, chosen = self.mask(batch)
        features = backbone({**batch, "text_ids": ids})
        if features.text is None or features.image is None:
            raise UserError(
                f"{type(backbone).__name__} gives no features of each word and each patch, which mode=pretrain needs; "
                "give them in its Features, with backbone.last_layer=all where it has that, or choose another backbone"
            )
        return {
            "word": self.word(features.text[chosen]),
            "word_label": batch["text_ids"][chosen],
            "words": self.words(features.pooled)[masked],
            "words_label": bag(batch["text_ids"], chosen, self.words.out_features)[masked],
            "match": self.match(features.pooled),
            "match_label": batch["match"].masked_fill(masked, IGNORE),
            "false_word": self.false_word(features.text),
            "false_word_label": batch["word_labels"].masked_fill(masked[:, None], IGNORE),
            "attribute": self.attribute(features.image[:, 1:]),
        }

    def mask(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """-> ids (B, T) with words masked, which pairs are masked (B,), which words (B, T).

        Every other true pair of the batch is masked; which words is random in training and fixed otherwise."""
        ids, true = batch["text_ids"], batch["match"] == 1
        masked = true & (true.cumsum(0) % 2 == 0)
        generator = None if self.training else torch.Generator().manual_seed(0)
        words = batch["text_mask"].clone()
        words[:, 0] = False
        words.scatter_(1, batch["text_mask"].sum(1, keepdim=True) - 1, False)  # [SEP]
        chosen = (torch.rand(ids.shape, generator=generator).to(ids.device) < self.mask_rate) & words & masked[:, None]
        return ids.masked_fill(chosen, self.mask_id), masked, chosen

    def loss(self, output: dict[str, Tensor], batch: Batch) -> Tensor:
        # True pairs that serve matching are half as many as false ones: weighed so that both count the same.
        balance = output["match"].new_tensor([0.5, 1.0])
        rare = output["match"].new_tensor([1.0, 5.0])
        loss = output["match"].new_zeros(())
        if len(output["word"]):  # a small batch may mask no pair, and a pair no word: a mean over none is no number
            loss = loss + F.cross_entropy(output["word"], output["word_label"])
        if len(output["words"]):
            scale = self.bag_weight * self.words.out_features
            loss = loss + scale * F.binary_cross_entropy_with_logits(output["words"], output["words_label"])
        loss = loss + F.cross_entropy(output["match"], output["match_label"], balance, ignore_index=IGNORE)
        loss = loss + F.cross_entropy(
            output["false_word"].flatten(0, 1), output["false_word_label"].flatten(), rare, ignore_index=IGNORE
        )
        parts = output["attribute"].split(self.attributes, dim=-1)
        for part, labels in zip(parts, batch["attributes"].unbind(-1), strict=True):
            loss = loss + F.cross_entropy(part.flatten(0, 1), labels.flatten())
        return loss

    def predictions(self, output: dict[str, Tensor], batch: Batch) -> list[Prediction]:
        right = output["match"].argmax(1) == output["match_label"]
        used = output["match_label"] != IGNORE
        words = output["word"].argmax(1) == output["word_label"]
        rows = [
            {"id": id, "prediction": "match", "kind": "match", "score": float(r)}
            for id, r, u in zip(batch["ids"], right.tolist(), used.tolist(), strict=True)
            if u
        ]
        first = batch["ids"][0]
        return rows + [{"id": first, "prediction": "word", "kind": "word", "score": float(w)} for w in words.tolist()]
