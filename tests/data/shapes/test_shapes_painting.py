"""Batches by which a text-to-image model learns to read and then to paint."""

import numpy as np
import pytest
import torch

from vltune.data.shapes import quarters
from vltune.data.shapes.painting import PaintingBatches
from vltune.data.shapes.scenes import COLOURS, SHAPES, SIZES
from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.tokenizer import FilledTokenizer, Tokenizer
from vltune.errors import UserError

TOKENS = VOCABULARY.read_text().splitlines()
PLACES = ("top left", "top right", "bottom left", "bottom right")


@pytest.fixture(params=[Tokenizer(VOCABULARY, 24), FilledTokenizer(VOCABULARY, "[PAD]", 24)], ids=["cut", "filled"])
def stream(request):
    tokenizer = request.param
    return PaintingBatches(seed=4, batch_size=32, tokenizer=tokenizer, max_text_len=24, steps=10, reading=0.3)


def texts(batch):
    return [" ".join(TOKENS[i] for i in ids.tolist() if i > 3) for ids in batch["text_ids"]]


def test_shapes_and_types(stream):
    for step, more in ((0, {"ends", "clauses", "cells"}), (3, set())):
        batch = stream.batch(step)
        assert batch.keys() == {"text_ids", "image"} | more
        assert batch["text_ids"].shape == (32, 24) and batch["text_ids"].dtype == torch.int64
        assert batch["image"].shape == (32, 3, 32, 32) and batch["image"].abs().max() <= 1


def test_what_a_clause_says_stands_at_its_last_word(stream):
    batch = stream.batch(0)
    said = [clause for text in texts(batch) for clause in text.split(" and ")]
    assert len(said) == len(batch["ends"])
    for text, (row, column), numbers in zip(said, batch["ends"].tolist(), batch["clauses"].tolist(), strict=True):
        assert TOKENS[batch["text_ids"][row, column]] == text.split()[-1]
        words = [
            names[number - 1] for names, number in zip((SIZES, COLOURS, SHAPES, PLACES), numbers, strict=True) if number
        ]
        size, colour, _, place = numbers
        expected = " ".join(
            ["a", *words[: bool(size) + bool(colour) + 1], *(["at the", PLACES[place - 1]] if place else [])]
        )
        assert text == expected


def test_quarters_have_what_the_caption_places_there(stream):
    batch = stream.batch(1)
    for text, cells in zip(texts(batch), batch["cells"].tolist(), strict=True):
        placed = [clause.split(" at the ") for clause in text.split(" and ") if " at the " in clause]
        assert {PLACES[place] for place, (shape, _) in enumerate(cells) if shape} == {where for _, where in placed}
        for what, where in placed:
            shape, colour = cells[PLACES.index(where)]
            assert SHAPES[shape - 1] in what
            assert (COLOURS[colour - 1] in what) if colour else not {*COLOURS} & {*what.split()}


def test_some_pictures_to_paint_have_no_caption(stream):
    found = [text for step in range(3, 23) for text in texts(stream.batch(step))]
    assert 0.06 < found.count("") / len(found) < 0.14
    assert "" not in texts(stream.batch(0))


def test_batches_follow_from_seed_and_step(stream):
    again = PaintingBatches(4, 32, Tokenizer(VOCABULARY, 24), 24, steps=10, reading=0.3)
    for step in (0, 5):
        for key, value in stream.batch(step).items():
            torch.testing.assert_close(value, again.batch(step)[key], rtol=0, atol=0)
    assert (stream.batch(5)["image"] != stream.batch(6)["image"]).any()


def test_what_is_scored_is_held_out_and_leaves_nothing_unsaid(stream, monkeypatch):
    asked, draw = [], quarters.draw

    def remember(rng, count, split="train"):
        asked.append(split)
        return draw(rng, count, split)

    monkeypatch.setattr(quarters, "draw", remember)
    batch = stream.held_out(0)
    stream.batch(0)
    assert asked == ["val", "train"]
    assert batch["wanted"].shape == (8, 4, 3) and batch["empty_ids"][0].count_nonzero() == 2
    for text, wanted in zip(texts(batch), batch["wanted"].tolist(), strict=True):
        full = {
            f"a {SIZES[z - 1]} {COLOURS[c - 1]} {SHAPES[s - 1]} at the {place}"
            for place, (s, c, z) in zip(PLACES, wanted, strict=True)
            if s
        }
        assert {*text.split(" and ")} == full


def test_a_text_too_short_is_refused():
    with pytest.raises(UserError, match="max_text_len=18: the longest caption needs 19 tokens"):
        PaintingBatches(0, 4, Tokenizer(VOCABULARY, 18), 18, steps=10)


def test_pictures_have_what_captions_say(stream):
    """A red that is said is there to see."""
    batch = stream.batch(4)
    for text, image in zip(texts(batch), batch["image"].numpy(), strict=True):
        if "red" in text.split():
            red, green, blue = image
            assert np.logical_and(red > 0.3, np.maximum(green, blue) < -0.2).any()
