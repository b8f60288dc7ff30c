"""What a batch holds, from `data.collate` through a backbone to a task's loss and predictions.

B examples, texts of at most T tokens, images of at most H x W pixels.  A data set's reader may give further keys.  With
stored features a tower's output stands in the place of what it reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from torch import Tensor


class Batch(TypedDict, total=False):
    ids: list[int]
    """Of the examples that could be read."""
    bad: list[str]
    """A message for each one that could not, which no other key has a row of."""

    text_ids: Tensor
    """(B, T) int64, padded to the longest."""
    text_mask: Tensor
    """(B, T) bool, True at the tokens."""
    text_attends: Tensor | None
    """The same, None where nothing is masked: what `Backbone.arrange` decides."""
    text_features: Tensor
    """(B, T, width): what a frozen text tower makes of them."""
    false_text_ids: Tensor
    """(B * K, T) int64: K captions of other images for each example, in a row; their mask and features alike."""
    false_text_mask: Tensor
    false_text_attends: Tensor | None
    false_text_features: Tensor

    image: Tensor
    """(B, 3, H, W) float32, normalised, zero-padded at the right and bottom; `image_0`, `image_1` where there are two."""
    image_size: Tensor
    """(B, 2) int64: height and width in pixels before padding."""
    image_features: Tensor
    """(B, N, width): what a frozen image tower makes of it."""
    image_0: Tensor
    image_0_size: Tensor
    image_0_features: Tensor
    image_1: Tensor
    image_1_size: Tensor
    image_1_features: Tensor

    label: Tensor
    """(B,) int64: the true class."""
    answer_labels: list[list[int]]
    """VQA: of each question those answers of the vocabulary that people gave."""
    answer_scores: list[list[float]]
    """Their soft scores, 0 to 1."""
    labelled: list[bool]
    """Whether the split's answers are published."""
    pair: list[str]
    """NLVR2: the pair of images."""
    sentence: list[int]
    """NLVR2: equal where one sentence was written for several pairs."""
    image_index: list[int]
    """Retrieval: the number of the caption's image."""
