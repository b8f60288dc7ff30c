"""Batches of images and captions for contrastive pretraining on the embedded world, drawn as they are needed."""

from typing import Any, ClassVar

import numpy as np
import torch

from vltune.data.shapes import language, scenes
from vltune.data.shapes.language import BARE, COLOUR, FIELDS, KIND, MAX_CLAUSES, NO_CLAUSE, PLACE, PLACED, SHAPE, SIZE
from vltune.data.shapes.objects import NEAR, enlarge, lone
from vltune.data.shapes.render import SIDE, render
from vltune.data.shapes.scenes import COLOURS, SHAPES, Scenes
from vltune.data.shapes.tokens import CaptionTokens, check_room
from vltune.data.tokenizer import Tokenizer

KINDS = ("enlarged", "in_place", "scene")  # of what is scored: 30 classes of one object, or a batch's own captions
_ENLARGED, _LONE = 3 / 8, 0.6  # share of a batch's enlarged objects, and of the other pictures with one object
_SHAPELESS, _PLACELESS = 0.25, 0.4  # share of captions that do not say the shape, or of one object's, the place


class ContrastiveBatches:
    """Batches that follow from (seed, step) alone: single objects enlarged, and from a share `alone` of all `steps` on
    beside as many in their places and some scenes with long captions.

    tokenizer: as `CaptionTokens` takes it.
    max_text_len: tokens a caption may have, [CLS] and [SEP] among them; at least 12.
    widest: pixels of the largest window around an enlarged object, at the last step; they grow from then on.
    """

    facts: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        seed: int,
        batch_size: int,
        tokenizer: Tokenizer,
        max_text_len: int,
        steps: int,
        alone: float = 0.2,
        widest: int = 64,
    ):
        check_room(max_text_len)
        self.seed, self.batch_size, self.max_words = seed, batch_size, max_text_len - 2
        self.steps, self.alone, self.widest = steps, alone, widest
        self._tokens = CaptionTokens(tokenizer)

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """One batch of B.

        text_ids (B, T) int64, text_mask (B, T) bool, image (B, 3, 64, 64) float32 in [-1, 1], true (B, B) bool: which
        images each caption holds of.  Where a window is enlarged, a caption that says a place holds of no picture."""
        rng = np.random.default_rng((self.seed, step))
        share = step / max(1, self.steps)
        together = share >= self.alone
        near = round(_ENLARGED * self.batch_size) if together else self.batch_size
        growth = max(0.0, (share - self.alone) / (1 - self.alone)) if together else 0.0
        widest = NEAR[1] + round((self.widest - NEAR[1]) * growth)
        drawn, pixels, clauses = self._enlarged(rng, near, widest)
        if far := self.batch_size - near:
            single = lone(rng, round(_LONE * far))
            whole = Scenes.concatenate([single, scenes.draw(rng, far - len(single))])
            captions = self._captions(rng, whole, len(single))
            drawn, pixels = Scenes.concatenate([drawn, whole]), np.concatenate([pixels, render(whole)])
            clauses = np.concatenate([clauses, captions])
        true = language.truth(drawn, clauses)
        true[:near] &= np.isin(clauses[..., KIND], (NO_CLAUSE, BARE)).all(1)
        return self._tensors(pixels, clauses, true)

    def held_out(self, step: int) -> dict[str, Any]:
        """A batch to score, of one of KINDS in turn: captions (C), true (B, C), `kind`.  Scenes are of the test split."""
        rng, kind = np.random.default_rng((self.seed, step)), KINDS[step % len(KINDS)]
        if kind == "scene":
            drawn = scenes.draw(rng, self.batch_size, "test")
            pixels, clauses = render(drawn), language.draw_captions(rng, drawn, self.max_words)
        else:
            drawn, clauses = lone(rng, self.batch_size), nouns()
            pixels = render(drawn)
            if kind == "enlarged":
                pixels = enlarge(rng, drawn, pixels, rng.integers(*NEAR, self.batch_size))
        return self._tensors(pixels, clauses, language.truth(drawn, clauses)) | {"kind": kind}

    def _enlarged(self, rng: np.random.Generator, count: int, widest: int) -> tuple[Scenes, np.ndarray, np.ndarray]:
        drawn = lone(rng, count)
        side = rng.integers(NEAR[0], widest, count)
        clauses = np.zeros((count, MAX_CLAUSES, FIELDS), int)
        clauses[:, 0, KIND] = BARE
        for field, values in ((SIZE, drawn.size), (COLOUR, drawn.colour), (SHAPE, drawn.shape)):
            clauses[:, 0, field] = values.max(1)
        clauses[:, 0, SIZE] *= (rng.random(count) < 0.5) & (side < NEAR[1])
        return drawn, enlarge(rng, drawn, render(drawn), side), clauses

    def _captions(self, rng: np.random.Generator, drawn: Scenes, single: int) -> np.ndarray:
        """Some leave a shape out, and of the first `single` scenes, of one object, the place."""
        clauses = language.draw_captions(rng, drawn, self.max_words)
        clauses[..., SHAPE] *= rng.random(clauses.shape[:2]) >= _SHAPELESS
        placeless = (rng.random(clauses.shape[:2]) < _PLACELESS) & (clauses[..., KIND] == PLACED)
        placeless[single:] = False
        clauses[placeless, KIND], clauses[placeless, PLACE] = BARE, 0
        return clauses

    def _tensors(self, pixels: np.ndarray, clauses: np.ndarray, true: np.ndarray) -> dict[str, torch.Tensor]:
        ids, lengths, _ = self._tokens.of(language.to_words(clauses))
        return {
            "text_ids": torch.from_numpy(ids),
            "text_mask": torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None] + 2),
            "image": torch.from_numpy(pixels).float().sub_(127.5).div_(127.5),
            "image_size": torch.full((len(pixels), 2), SIDE),
            "true": torch.from_numpy(true),
        }


def nouns() -> np.ndarray:
    """(30, 3, 8) clauses: "a red circle" and every other colour and shape."""
    clauses = np.zeros((len(SHAPES) * len(COLOURS), MAX_CLAUSES, FIELDS), int)
    clauses[:, 0, KIND] = BARE
    clauses[:, 0, SHAPE], clauses[:, 0, COLOUR] = 1 + np.array([*np.ndindex(len(SHAPES), len(COLOURS))]).T
    return clauses
