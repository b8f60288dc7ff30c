"""Visual entailment (SNLI-VE, Xie et al. 2019): does a picture entail a sentence, contradict it, or neither?"""

from __future__ import annotations

from vltune.data.snli_ve.prepare import LABELS
from vltune.tasks.classification import Classification


class SNLIVE(Classification):
    """Cross-entropy over three classes; accuracy."""

    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, 2 * width, LABELS)
