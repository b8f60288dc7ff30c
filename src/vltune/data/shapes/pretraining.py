"""Batches of images and captions for pretraining on the embedded world, drawn as they are needed."""

from typing import Any, ClassVar

import numpy as np
import torch

from vltune.data.shapes import language, scenes
from vltune.data.shapes.render import SIDE, coverage, render, sprite_index
from vltune.data.shapes.tokens import CaptionTokens, check_room
from vltune.data.tokenizer import Tokenizer
from vltune.errors import UserError

_IGNORED = -100
_PATCH_COVERED = 1 / 20  # of a patch's pixels: an object that covers less than this is not that patch's object


class PretrainingBatches:
    """Batches that follow from (seed, step) alone.  They never show a layout of the val or test split.

    tokenizer: must hold every caption word as one token (the committed vocabulary does; UserError otherwise).
    max_text_len: tokens a caption may have, [CLS] and [SEP] among them; at least 12.
    `attribute_classes`: how many classes shape, colour and size have, background (0) included.
    """

    attribute_classes: ClassVar[tuple[int, int, int]] = tuple(
        1 + len(names) for names in (scenes.SHAPES, scenes.COLOURS, scenes.SIZES)
    )
    facts: ClassVar[dict[str, Any]] = {"attributes": attribute_classes}

    def __init__(self, seed: int, batch_size: int, tokenizer: Tokenizer, max_text_len: int, patch_size: int = 16):
        if SIDE % patch_size:
            raise UserError(f"patch_size={patch_size}: does not divide the {SIDE} pixels of a shapes image")
        check_room(max_text_len)
        self.seed, self.batch_size, self.max_text_len, self.patch_size = seed, batch_size, max_text_len, patch_size
        self._tokens = CaptionTokens(tokenizer)

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """One batch of B; half of the captions are true, a quarter another image's, a quarter false in one word.

        text_ids (B, T) int64, text_mask (B, T) bool, image (B, 3, 64, 64) float32 in [-1, 1], image_size (B, 2) int64
        (height, width in pixels), match (B,) int64 (1: the caption is true), wrong_words (B, T) bool (the false word),
        word_labels (B, T) int64 (1 a wrong word, 0 a right one, -100 no word or another image's caption), attributes
        (B, patches, 3) int64 (shape, colour, size of the object that covers most of each patch in raster order, 0
        where none covers a twentieth).
        """
        rng = np.random.default_rng((self.seed, step))
        count = self.batch_size
        drawn = scenes.draw(rng, count)
        max_words = self.max_text_len - 2
        clauses = language.draw_captions(rng, drawn, max_words)
        true_words = language.to_words(clauses)

        order = rng.permutation(count)
        easy, hard = np.split(order[: count // 2], [count // 4])
        clauses[easy] = self._foreign_captions(rng, drawn[easy], max_words)
        clauses[hard] = language.falsify(rng, drawn[hard], clauses[hard])
        words = language.to_words(clauses)
        wrong = words != true_words
        wrong[easy] = False

        text = self._text(words, wrong)
        text["word_labels"][easy] = _IGNORED
        match = np.ones(count, int)
        match[order[: count // 2]] = 0
        image = torch.from_numpy(render(drawn)).float().sub_(127.5).div_(127.5)
        return {key: torch.from_numpy(value) for key, value in text.items()} | {
            "image": image,
            "image_size": torch.full((count, 2), SIDE),
            "match": torch.from_numpy(match),
            "attributes": torch.from_numpy(self._attributes(drawn)),
        }

    held_out = batch

    def _foreign_captions(self, rng: np.random.Generator, drawn: scenes.Scenes, max_words: int) -> np.ndarray:
        """Captions of other scenes that are false of these."""
        clauses = np.zeros((len(drawn), language.MAX_CLAUSES, 8), int)
        true = np.arange(len(drawn))
        while len(true):
            clauses[true] = language.draw_captions(rng, scenes.draw(rng, len(true)), max_words)
            true = true[language.hold(drawn[true], clauses[true])]
        return clauses

    def _text(self, words: np.ndarray, wrong: np.ndarray) -> dict[str, np.ndarray]:
        ids, lengths, order = self._tokens.of(words)
        place = np.arange(ids.shape[1])
        wrong_words = np.zeros(ids.shape, bool)
        wrong_words[:, 1:-1] = np.take_along_axis(wrong, order, 1)
        is_word = (place > 0) & (place <= lengths[:, None])
        return {
            "text_ids": ids,
            "text_mask": place < lengths[:, None] + 2,
            "wrong_words": wrong_words,
            "word_labels": np.where(is_word, wrong_words, _IGNORED),
        }

    def _attributes(self, drawn: scenes.Scenes) -> np.ndarray:
        covered = coverage(self.patch_size)[sprite_index(drawn), np.arange(scenes.CELLS)]  # (B, 9, patches)
        cell = covered.argmax(1)
        there = covered.max(1) >= _PATCH_COVERED * self.patch_size**2
        return np.stack(
            [there * np.take_along_axis(values, cell, 1) for values in (drawn.shape, drawn.colour, drawn.size)], -1
        )
