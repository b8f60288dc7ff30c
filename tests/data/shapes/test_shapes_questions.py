from collections import Counter

import numpy as np
import pytest
from reading import solve, things

from vltune.data.shapes import scenes
from vltune.data.shapes.questions import ANSWERS, ask, human_answers
from vltune.errors import UserError


@pytest.fixture(scope="module")
def drawn():
    return scenes.draw(np.random.default_rng(0), 1000)


@pytest.fixture(scope="module")
def asked(drawn):
    return ask(np.random.default_rng(1), drawn, 4)


def test_answers_are_right_and_referents_unambiguous(drawn, asked):
    assert [len(row) for row in asked] == [4] * 1000
    for row, questions in enumerate(asked):
        objects = things(drawn, row)
        assert len({question.text for question in questions}) == 4
        for question in questions:
            assert solve(question.text, objects) == question.answer, (question, objects)
            assert question.text.startswith(question.question_type)


def test_answers_are_balanced(asked):
    by_type = {}
    for question in (question for row in asked for question in row):
        by_type.setdefault(question.question_type, Counter())[question.answer] += 1
    assert set().union(*by_type.values()) == set(ANSWERS)
    for begins, highest in {
        "how many": 0.35,
        "what color is the": 0.2,
        "what color is the object": 0.2,
        "what shape is the": 0.24,
        "what shape is": 0.24,
        "what size is the": 0.55,
        "where is the": 0.15,
        "is there a": 0.6,
    }.items():
        counts = by_type.pop(begins)
        assert max(counts.values()) < highest * counts.total(), (begins, counts)
        assert counts.total() > 100
    assert not by_type


def test_people_mostly_tell_the_truth():
    truth = list(ANSWERS) * 100
    given = human_answers(np.random.default_rng(0), truth)
    right = Counter(ten.count(answer) for answer, ten in zip(truth, given, strict=True))
    assert right.keys() == {7, 8, 9, 10}
    assert 0.5 < right[10] / right.total() < 0.6
    assert {answer for ten in given for answer in ten} == set(ANSWERS)
    assert all(len(set(ten)) <= 4 for ten in given)


@pytest.mark.parametrize("count", [0, 5])
def test_number_of_questions(drawn, count):
    with pytest.raises(UserError, match=f"questions_per_image={count}"):
        ask(np.random.default_rng(0), drawn, count)
