import numpy as np
import pytest
from reading import things, true

from vltune.data.shapes import language, scenes, vocabulary
from vltune.data.shapes.scenes import COLOURS, SHAPES, SIZES


@pytest.fixture(scope="module")
def drawn():
    return scenes.draw(np.random.default_rng(0), 600)


@pytest.fixture(scope="module")
def clauses(drawn):
    return language.draw_captions(np.random.default_rng(1), drawn, 18)


def texts(clauses):
    return language.to_text(language.to_words(clauses))


def test_captions_are_true_and_tell_of_several_objects(drawn, clauses):
    captions = texts(clauses)
    assert all(true(caption, things(drawn, row)) for row, caption in enumerate(captions))
    assert max(len(caption.split()) for caption in captions) == 18
    assert np.mean([caption.count(" a ") + 1 >= 2 for caption in captions]) > 0.85
    for word in (" and ", " at the ", " above ", " below ", " left of ", " right of ", "large", "small"):
        assert np.mean([word in caption for caption in captions]) > 0.05


def test_hold_agrees_with_reading(drawn, clauses):
    shifted = np.roll(clauses, 1, axis=0)
    shifted[:, 1:] = 0
    truth = language.hold(drawn, shifted)
    assert truth.tolist() == [true(caption, things(drawn, row)) for row, caption in enumerate(texts(shifted))]
    assert 0 < truth.sum() < len(truth) / 4


def test_one_changed_word_makes_it_false(drawn, clauses):
    before, after = texts(clauses), texts(language.falsify(np.random.default_rng(2), drawn, clauses))
    changed = set()
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        old, new = old.split(), new.split()
        assert len(old) == len(new)
        [(was, _)] = [pair for pair in zip(old, new, strict=True) if pair[0] != pair[1]]
        changed.add(was)
        assert not true(" ".join(new), things(drawn, row)), (old, new, things(drawn, row))
    assert changed >= {*SIZES, *COLOURS, *SHAPES, "above", "below", "left", "right", "top", "bottom", "center"}


def test_committed_vocabulary_is_what_the_corpus_gives(tokenizer):
    built = vocabulary.build(vocabulary.corpus())
    assert vocabulary.VOCABULARY.read_text().splitlines() == built
    assert built[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert 60 <= len(built) == len(set(built)) <= 150
    assert built == vocabulary.build(vocabulary.corpus(seed=1))
    unknown = built.index("[UNK]")
    assert unknown not in tokenizer("7 zebras?")
