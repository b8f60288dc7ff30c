"""The committed judge of shapes: what it reads, and what it says of pictures and prompts."""

import pytest
import torch

from vltune.data.shapes import quarters
from vltune.data.shapes.looks import SUBJECTS
from vltune.data.shapes.quarters import PAINTS, TEXTURES
from vltune.data.shapes.scenes import SHAPES
from vltune.data.shapes.subjects import pictured
from vltune.judges.judge import alike, find
from vltune.judges.shapes import ShapesJudge
from vltune.judges.shapes_training import accuracy, shown, train


@pytest.fixture(scope="module")
def judge():
    return ShapesJudge()


def pictures(textured=0.0, count=300, seed=123):
    drawn = shown(seed, 0, count, textured)
    return drawn, torch.from_numpy(quarters.render(drawn))


def test_it_is_found_by_its_name_and_told_by_its_weights(judge):
    assert find("shapes") is ShapesJudge
    assert judge.identity.startswith("ShapesJudge shapes_judge.safetensors ")
    assert not judge.training and not any(parameter.requires_grad for parameter in judge.parameters())


@pytest.mark.parametrize("textured", [0.0, 0.4, 1.0])
def test_it_reads_real_pictures(judge, textured):
    found = accuracy(judge.reader, textured, count=1000, seed=77)
    assert found.keys() == {"shape", "colour", "size", "texture", "second", "empty"}
    assert min(found.values()) > 0.99, found


def test_what_it_reads_is_counted_as_the_world_counts(judge):
    drawn, seen = pictures(textured=0.4)
    for name, values in judge.read(seen).items():
        assert values.shape == (300, 4)
        assert (values.numpy() == getattr(drawn, name)).mean() > 0.99


def test_regions_have_unit_length_and_are_zero_where_nothing_is(judge):
    drawn, seen = pictures()
    found = judge.embed(seen)
    there = torch.from_numpy(drawn.shape > 0).float()
    torch.testing.assert_close(found.norm(dim=-1), there)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_it_tells_a_subject_from_what_is_not(judge, subject):
    import numpy as np

    look = SUBJECTS[subject]
    real = torch.from_numpy(quarters.render(pictured(np.random.default_rng(5), 8, look)))
    read = judge.read(real)
    assert {*read["texture"].amax(1).tolist()} == {TEXTURES.index(look.texture)}
    assert {*read["colour"].amax(1).tolist()} == {PAINTS.index(look.colour) + 1}
    _, others = pictures()
    own = judge.embed(real)
    same = alike(own, own)[~torch.eye(8, dtype=torch.bool)]
    assert same.min() > 0.9
    assert alike(own, judge.embed(others)).mean() < same.mean() - 0.2


def test_true_captions_are_shown_whole(judge):
    import numpy as np

    drawn, seen = pictures()
    for full in (True, False):
        found = judge.agreement(seen, quarters.captions(np.random.default_rng(0), drawn, full))
        assert found.shape == (300,) and found.mean() > 0.995


def test_what_a_prompt_says_counts_word_by_word_and_in_its_place(judge):
    drawn, seen = pictures()
    row = next(
        row
        for row in range(300)
        if drawn.shape[row].tolist() == [1 + SHAPES.index("star"), 0, 0, 0] or (drawn.shape[row] > 0).sum() == 1
    )
    quarter = int(drawn.shape[row].argmax())
    shape, other = SHAPES[drawn.shape[row, quarter] - 1], SHAPES[drawn.shape[row, quarter] % len(SHAPES)]
    colour = PAINTS[drawn.colour[row, quarter] - 1]
    place = ("top left", "top right", "bottom left", "bottom right")
    told = {
        f"a {shape}": 1.0,
        f"a {colour} {shape}": 1.0,
        f"a {colour} {other}": 0.5,
        f"a {colour} {shape} at the {place[quarter]}": 1.0,
        f"a {colour} {shape} at the {place[3 - quarter]}": 0.0,
        f"a {shape} and a {shape}": 0.5,
        "a z": 1.0,
        "": 1.0,
    }
    found = judge.agreement(seen[row : row + 1].expand(len(told), -1, -1, -1), [*told])
    assert found.tolist() == [*told.values()]


def test_its_training_learns():
    losses = [accuracy(train(steps, batch=16), 0.0, count=100)["size"] for steps in (1, 25)]
    assert losses[1] > losses[0]
