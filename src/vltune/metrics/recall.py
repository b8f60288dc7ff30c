"""Where a retrieval puts the true match, when every image is scored with every caption."""

from __future__ import annotations

import torch
from torch import Tensor

from vltune.errors import UserError

IMAGES_PER_BLOCK = 16  # with 25,000 captions, a few times 2 MB beside the scores


def ranks(scores: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """The places, from 1, that image retrieval and text retrieval give to the true match.

    scores: (images, captions).  owner: (captions,) int64, the image that a caption is of; each image has one or more.
    Returns (captions,) int64, the place of a caption's own image among all images, and (images,) int64, the place of the
    best of an image's own captions among the captions of other images.  Equal scores, and NaN, count against the true one.
    UserError for an image without a caption: nothing of it could be found, and it would count as missed.
    """
    if len(bare := torch.bincount(owner, minlength=len(scores)).eq(0).nonzero()):
        raise UserError(
            f"image {int(bare[0])} has no caption, {len(bare)} of {len(scores)} have none: they cannot be retrieved; make "
            "the data again without them, as `vltune prepare` does"
        )
    own = scores[owner, torch.arange(len(owner))]
    of_image, of_caption = torch.zeros_like(owner), owner.new_zeros(len(scores))
    for images in torch.arange(len(scores)).split(IMAGES_PER_BLOCK):
        block, mine = scores[images], owner == images[:, None]
        best = block.masked_fill(~mine, -torch.inf).amax(1, keepdim=True)
        of_image += (~(block < own)).sum(0)
        of_caption[images] = 1 + (~(block < best) & ~mine).sum(1)
    return of_image, of_caption
