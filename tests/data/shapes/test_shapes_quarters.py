"""Small pictures of one or two objects, and what captions say of them."""

import numpy as np
import pytest

from vltune.data.shapes import language, quarters
from vltune.data.shapes.language import KIND, NO_CLAUSE
from vltune.data.shapes.quarters import PAINTS, TEXTURES, Quarters, draw, draw_captions, render
from vltune.data.shapes.scenes import COLOURS
from vltune.data.shapes.vocabulary import VOCABULARY


def rng(seed=0):
    return np.random.default_rng(seed)


def one(**attributes):
    """A picture of one object, at the top left unless told."""
    found = {name: np.zeros((1, 4), int) for name in Quarters.__dataclass_fields__} | {"tint": np.full((1, 3), 40)}
    given = {"shape": 2, "colour": 1, "size": 2, "jitter": 4, "shade": 24, "quarter": 0} | attributes
    quarter = given.pop("quarter")
    for name, value in given.items():
        found[name][0, quarter] = value
    return Quarters(**found)


def test_a_picture_shows_one_or_two_objects():
    drawn = draw(rng(), 500)
    counts = (drawn.shape > 0).sum(1)
    assert {*counts} == {1, 2}
    assert 0.55 < (counts == 2).mean() < 0.75
    assert (drawn.texture == 0).all() and (drawn.second == 0).all()
    assert drawn.colour.max() == len(COLOURS)


def test_the_same_seed_gives_the_same_bytes():
    first, again = (render(draw(rng(3), 20)) for _ in range(2))
    assert first.dtype == np.uint8 and first.shape == (20, 3, 32, 32)
    np.testing.assert_array_equal(first, again)
    assert (first != render(draw(rng(4), 20))).any()


def test_no_layout_is_of_two_splits():
    layouts = [{*draw(rng(seed), 3000, split).scenes.layout} for seed, split in enumerate(("train", "val", "test"))]
    assert all(layouts)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not layouts[i] & layouts[j]


def test_textured_objects_have_two_colours_and_solid_ones_one():
    drawn = draw(rng(), 500, None, textured=0.5, paints=len(PAINTS))
    there, textured = drawn.shape > 0, drawn.texture > 0
    assert not (textured & ~there).any()
    assert 0.4 < textured[there].mean() < 0.6
    np.testing.assert_array_equal(drawn.second > 0, textured)
    assert (drawn.second != drawn.colour)[textured].all()
    assert drawn.colour.max() == drawn.second.max() == len(PAINTS)


@pytest.mark.parametrize("quarter", range(4))
def test_an_object_is_drawn_in_its_quarter(quarter):
    picture = render(one(quarter=quarter)).astype(int)[0]
    changed = (picture != 40).any(0).reshape(2, 16, 2, 16).any((1, 3)).flatten()
    assert changed.tolist() == [each == quarter for each in range(4)]


def test_shade_and_jitter_move_what_is_drawn():
    plain, brighter, moved = (render(one(**more)).astype(int) for more in ({}, {"shade": 34}, {"jitter": 5}))
    assert (brighter - plain).max() == 10
    np.testing.assert_array_equal(moved[..., 1:16], plain[..., :15])


@pytest.mark.parametrize("texture", range(1, len(TEXTURES)))
def test_a_texture_shows_both_colours(texture):
    picture = render(one(texture=texture, colour=7, second=8))[0].reshape(3, -1).T.tolist()
    assert [240, 140, 30] in picture and [240, 240, 240] in picture


@pytest.mark.parametrize("full", [False, True])
def test_captions_are_true_of_their_pictures_and_of_few_others(full):
    drawn = draw(rng(), 400)
    clauses = draw_captions(rng(1), drawn, full)
    assert language.hold(drawn.scenes, clauses).all()
    assert language.hold(drawn.scenes[np.roll(np.arange(400), 1)], clauses).mean() < (0.01 if full else 0.1)
    np.testing.assert_array_equal((clauses[..., KIND] != NO_CLAUSE).sum(1), (drawn.shape > 0).sum(1))


def test_captions_say_everything_or_leave_some_of_it_out():
    drawn = draw(rng(), 300)
    full, some = (quarters.captions(rng(1), drawn, each) for each in (True, False))
    assert all(len(text.split()) == 8 * (text.count(" and ") + 1) + text.count(" and ") for text in full)
    assert max(len(text.split()) for text in full) == quarters.WORDS
    assert sum(text.count("at the") for text in some) < 0.85 * sum(text.count("at the") for text in full)
    assert {*" ".join(full).split()} <= {*VOCABULARY.read_text().split()}


def test_no_caption_names_what_subjects_have():
    said = {*" ".join(quarters.captions(rng(1), draw(rng(), 2000))).split()}
    assert not said & {*PAINTS[len(COLOURS) :], *TEXTURES}
