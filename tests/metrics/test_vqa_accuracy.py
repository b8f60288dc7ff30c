from itertools import combinations

import pytest

from vltune.metrics.vqa import normalise, soft_score, vqa_accuracy


@pytest.mark.parametrize(
    ("answer", "official"),
    [
        ("A Red  Bus", "red bus"),
        ("two", "2"),
        ("None", "0"),
        ("the ten dogs", "10 dogs"),
        ("dont know", "don't know"),
        ("couldntve", "couldntve"),  # lacks two apostrophes: not in the official table
        ("couldnt've", "couldn't've"),
        ("oclock", "o'clock"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),
        ("red, white", "red white"),  # beside a space: deleted
        ("red/white", "red white"),  # between letters: a space
        ("t-shirt", "t shirt"),
        ("1,000 - 2,000", "1000 2000"),  # a comma between digits: every mark deleted
        ("1.5 lbs.", "1.5 lbs"),
        ("10:30", "10:30"),  # the colon is not among the official marks
        (" yes\n", "yes"),
        ("what?!", "what"),
        ("a.b", "ab"),
        ("." * 33, "."),  # the official pattern removes at most 32
    ],
)
def test_normalise(answer, official):
    assert normalise(answer) == official


def ten_choose_nine(count):
    """The official rule written out over the ten groups of nine."""
    humans = [True] * count + [False] * (10 - count)
    groups = list(combinations(humans, 9))
    return sum(min(sum(group) / 3, 1) for group in groups) / len(groups)


@pytest.mark.parametrize("count", range(11))
def test_soft_score_is_the_official_rule(count):
    humans = ["cat"] * count + ["dog"] * (10 - count)
    assert soft_score(count) == pytest.approx(ten_choose_nine(count))
    assert vqa_accuracy("cat", humans) == pytest.approx(soft_score(count))


def test_accuracy_by_hand():
    humans = ["Two", "2", "two.", "3", "3", "4", "5", "6", "7", "8"]
    assert vqa_accuracy("2", humans) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert vqa_accuracy("the 3", humans) == pytest.approx(0.6)
    assert vqa_accuracy("9", humans) == 0


def test_unanimous_answers_are_compared_as_they_stand():
    assert vqa_accuracy(" YES ", ["yes"] * 10) == 1
    assert vqa_accuracy("2", ["two"] * 10) == 0  # as the official program: normalised only where humans disagree
