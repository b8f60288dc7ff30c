"""Image-text retrieval by a backbone of two towers (CLIP, Radford et al. 2021, arXiv 2103.00020), on Karpathy's splits.

Loss: `contrastive`'s, of the pairs of a batch, where captions of one image are all its own.  Recall at K: `retrieval`'s, by
one product of all images and all captions of a split.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vltune.backbones.backbone import TWO_TOWERS, Backbone
from vltune.batch import Batch
from vltune.tasks.contrastive import contrast
from vltune.tasks.retrieval import Ranking


class Matching(Ranking):
    """tokenizer: gives a text's token ids, to methods that start as words; None where no data is read.  folds: see
        `Ranking`.

    A pair is told from all others of its batch, which is computed as a whole on one device.  A caption is cut to the room
    that a method's tokens leave.
    """

    whole_batches = True
    needs = TWO_TOWERS
    evaluator = "one_product"

    def __init__(self, in_width: int, tokenizer: Callable[[str], list[int]] | None = None, folds: int = 1):
        super().__init__(folds)
        self.tokenizer = tokenizer

    def forward(self, backbone: Backbone, batch: Batch) -> Tensor:
        """-> (B, B) logits, of each image with each caption"""
        image = backbone.embed_image(batch)
        return backbone.compare(image, backbone.embed_text(backbone.in_room(batch["text_ids"], image), image))

    def counted(self, backbone: Backbone, batch: Batch) -> dict[str, Callable[[], Tensor]]:
        """An image and one text as long as costs are counted on, a method's tokens among it where it would be too long."""
        image = torch.zeros(1, backbone.pooled_width, device=batch["text_ids"].device)
        ids = backbone.in_room(batch["text_ids"], image)
        return {"image": lambda: backbone.embed_image(batch), "text": lambda: backbone.embed_text(ids, image)}

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """batch: image_index, the number of each caption's image."""
        owner = torch.tensor(batch["image_index"], device=output.device)
        return contrast(output, owner[:, None] == owner)
