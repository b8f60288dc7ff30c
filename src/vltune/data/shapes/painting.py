"""Batches of pictures and captions for pretraining a text-to-image model on the embedded world, drawn as needed."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from vltune.data.shapes import language, quarters
from vltune.data.shapes.language import COLOUR, KIND, NO_CLAUSE, PLACE, PLACED, PLACES, SHAPE, SIZE
from vltune.data.shapes.quarters import CORNERS, QUARTERS, WORDS, Quarters
from vltune.data.shapes.scenes import COLOURS, SHAPES, SIZES
from vltune.data.shapes.tokens import CaptionTokens
from vltune.data.tokenizer import Tokenizer
from vltune.errors import UserError

_WORDLESS = 0.1  # share of pictures with an empty caption, which guidance leads away from
_SCORED = 8  # pictures of a batch to score, each of which has to be painted
_QUARTER = np.zeros(CORNERS.max() + 1, int)
_QUARTER[CORNERS] = 1 + np.arange(QUARTERS)


class PaintingBatches:
    """Batches that follow from (seed, step) alone: in the first `reading` of all `steps` captions with what they say, after
    them pictures with captions, a tenth of which are empty.

    tokenizer: as `CaptionTokens` takes it.
    max_text_len: tokens that every caption is padded to.
    `attributes`: how many values size, colour, shape and place of a clause have, each with one for unsaid.
    """

    facts: ClassVar[dict[str, Any]] = {
        "attributes": tuple(1 + values for values in (len(SIZES), len(COLOURS), len(SHAPES), QUARTERS))
    }

    def __init__(
        self, seed: int, batch_size: int, tokenizer: Tokenizer, max_text_len: int, steps: int, reading: float = 0.13
    ):
        if max_text_len < WORDS + 2:
            raise UserError(f"max_text_len={max_text_len}: the longest caption needs {WORDS + 2} tokens")
        self.seed, self.batch_size, self.max_text_len = seed, batch_size, max_text_len
        self.reads = round(reading * steps)
        self._tokens = CaptionTokens(tokenizer)

    def batch(self, step: int) -> dict[str, Any]:
        """One batch of B.

        text_ids (B, T) int64, image (B, 3, 32, 32) float32 in [-1, 1].  While it reads also `ends` (C, 2) int64, where each
        clause ends (row and column of its last word), `clauses` (C, 4) int64, its size, colour, shape and quarter, and
        `cells` (B, 4, 2) int64, shape and colour that the caption says of each quarter; 0 is unsaid."""
        rng = np.random.default_rng((self.seed, step))
        drawn = quarters.draw(rng, self.batch_size)
        clauses = quarters.draw_captions(rng, drawn)
        if step < self.reads:
            return self._tensors(drawn, clauses) | self._said(clauses)
        clauses[rng.random(len(clauses)) < _WORDLESS] = 0
        return self._tensors(drawn, clauses)

    def held_out(self, step: int) -> dict[str, Any]:
        """Eight pictures to paint after captions that leave nothing unsaid, `empty_ids` (1, T) int64 of the empty caption,
        and `wanted` (8, 4, 3) int64: shape, colour and size in each quarter.  No such layout is trained on."""
        rng = np.random.default_rng((self.seed, step))
        drawn = quarters.draw(rng, min(_SCORED, self.batch_size), "val")
        wanted = torch.from_numpy(np.stack([drawn.shape, drawn.colour, drawn.size], -1))
        clauses = quarters.draw_captions(rng, drawn, full=True)
        return self._tensors(drawn, clauses) | {"empty_ids": self._ids(0 * clauses[:1]), "wanted": wanted}

    def _tensors(self, drawn: Quarters, clauses: np.ndarray) -> dict[str, Tensor]:
        image = torch.from_numpy(quarters.render(drawn)).float().sub_(127.5).div_(127.5)
        return {"text_ids": self._ids(clauses), "image": image}

    def _ids(self, clauses: np.ndarray) -> Tensor:
        ids, _, _ = self._tokens.of(language.to_words(clauses))
        padded = np.full((len(ids), self.max_text_len), self._tokens.pad)
        padded[:, : ids.shape[1]] = ids
        return torch.from_numpy(padded)

    @staticmethod
    def _said(clauses: np.ndarray) -> dict[str, Tensor]:
        lengths = (language.to_words(clauses).reshape(*clauses.shape[:2], PLACES) > 0).sum(2).cumsum(1)
        rows, which = np.nonzero(clauses[..., KIND] != NO_CLAUSE)
        said = clauses[rows, which]
        quarter = _QUARTER[said[:, PLACE]] * (said[:, KIND] == PLACED)
        cells = np.zeros((len(clauses), QUARTERS, 2), int)
        placed = quarter > 0
        cells[rows[placed], quarter[placed] - 1] = said[placed][:, [SHAPE, COLOUR]]
        found = {
            "ends": np.stack([rows, lengths[rows, which]], 1),
            "clauses": np.stack([said[:, SIZE], said[:, COLOUR], said[:, SHAPE], quarter], 1),
            "cells": cells,
        }
        return {name: torch.from_numpy(array) for name, array in found.items()}
