import numpy as np
import pytest
import torch
from reading import things, true

from vltune.data.shapes import language, scenes
from vltune.data.shapes.contrastive import KINDS, ContrastiveBatches, nouns
from vltune.data.shapes.render import render
from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.tokenizer import Tokenizer
from vltune.errors import UserError

TOKENS = VOCABULARY.read_text().splitlines()
STEPS, FIRST, LATER = 100, 3, 40


def stream(tokenizer, seed=4, **more):
    return ContrastiveBatches(seed, 48, tokenizer, 26, STEPS, **more)


@pytest.fixture
def seen(tokenizer, monkeypatch):
    """Of a step: the batch and the scenes that its images show."""
    drawn = []

    def remember(shown):
        drawn.append(shown)
        return render(shown)

    monkeypatch.setattr("vltune.data.shapes.contrastive.render", remember)

    def at(step, held_out=False):
        drawn.clear()
        batch = getattr(stream(tokenizer), "held_out" if held_out else "batch")(step)
        return batch, [things(of, row) for of in drawn for row in range(len(of))]

    return at


def captions(batch):
    masked = zip(batch["text_ids"], batch["text_mask"], strict=True)
    return [" ".join(TOKENS[i] for i in ids[mask].tolist()[1:-1]) for ids, mask in masked]


@pytest.mark.parametrize("step", [FIRST, LATER])
def test_shapes_and_types(tokenizer, step):
    batch = stream(tokenizer).batch(step)
    length = batch["text_ids"].shape[1]
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "text_ids": ((48, length), torch.int64),
        "text_mask": ((48, length), torch.bool),
        "image": ((48, 3, 64, 64), torch.float32),
        "image_size": ((48, 2), torch.int64),
        "true": ((48, 48), torch.bool),
    }
    assert length == batch["text_mask"].sum(1).max() <= 26
    assert batch["image"].abs().max() <= 1
    assert batch["true"].diagonal().all()


def test_follows_from_seed_and_step(tokenizer):
    for draw in ("batch", "held_out"):
        one, again, other, later = (
            getattr(stream(tokenizer, seed), draw)(step) for seed, step in ((4, 40), (4, 40), (5, 40), (4, 43))
        )
        assert all(torch.equal(one[key], again[key]) for key in one.keys() - {"kind"})
        for changed in (other, later):
            assert not torch.equal(one["image"], changed["image"])


def test_every_true_caption_of_a_batch_is_marked(seen):
    """By reading each with each picture's objects; an enlarged object has no place."""
    batch, shown = seen(LATER)
    near = 18
    found = [
        [true(caption, objects) and not (row < near and " at the " in caption) for caption in captions(batch)]
        for row, objects in enumerate(shown)
    ]
    assert batch["true"].tolist() == found
    assert 1.5 < batch["true"].float().sum(1).mean() < 10


def test_enlarged_objects_come_first_and_alone(seen):
    batch, shown = seen(FIRST)
    assert all(len(objects) == 1 for objects in shown)
    said = captions(batch)
    assert all(len(caption.split()) in (3, 4) and caption.startswith("a ") for caption in said)
    assert {"large", "small"} < {word for caption in said for word in caption.split()}
    covered = (batch["image"] - batch["image"][:, :, :1, :1]).abs().amax(1) > 0.3
    assert covered.float().mean() > 0.12  # in its place an object covers 4 % at most
    batch, shown = seen(LATER)
    assert sum(len(objects) == 1 for objects in shown) == 36
    words = " ".join(captions(batch))
    assert all(phrase in words for phrase in (" at the ", " and ", "object"))
    assert max(len(caption.split()) for caption in captions(batch)) > 14


def test_what_is_scored(seen):
    assert len(set(language.to_text(language.to_words(nouns())))) == 30
    for step, kind in enumerate(KINDS):
        batch, shown = seen(step, held_out=True)
        assert batch["kind"] == kind
        expected = [[true(caption, objects) for caption in captions(batch)] for objects in shown]
        assert batch["true"].tolist() == expected
        if kind != "scene":
            assert (batch["true"].sum(1) == 1).all()
        assert batch["true"].shape == (48, 48 if kind == "scene" else 30)


def test_truth_of_all_pairs_is_that_of_each():
    rng = np.random.default_rng(3)
    drawn = scenes.draw(rng, 40)
    clauses = language.draw_captions(rng, scenes.draw(rng, 60), 26)
    clauses[::3, 1:] = 0
    clauses[::2, :, language.SHAPE] = 0
    table = language.truth(drawn, clauses)
    assert table.shape == (40, 60)
    assert table.T.tolist() == [language.hold(drawn, np.broadcast_to(c, (40, *c.shape))).tolist() for c in clauses]
    assert 0.01 < table.mean() < 0.5


def test_what_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="max_text_len=11: the longest clause of a caption needs 12 tokens"):
        ContrastiveBatches(0, 4, tokenizer, 11, STEPS)
    words = tmp_path / "vocab.txt"
    words.write_text("\n".join(token for token in TOKENS if token != "circle"))
    with pytest.raises(UserError, match="the tokenizer splits the caption words circle"):
        ContrastiveBatches(0, 4, Tokenizer(words, 32), 26, STEPS)
