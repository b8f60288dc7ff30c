from itertools import combinations

import pytest

from vltune.metrics.vqa import Annotation, evaluate, normalise, soft_score, vqa_accuracy


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


def choose_all_but_one(count, humans=10):
    """The official rule written out over the groups that leave one of the humans out; `count` gave the answer."""
    groups = list(combinations([True] * count + [False] * (humans - count), humans - 1))
    return sum(min(sum(group) / 3, 1) for group in groups) / len(groups)


# On paper: (those who gave it x min(1, (count - 1) / 3) + the others x min(1, count / 3)) / 10.
ON_PAPER = {
    0: 0.0,  # (0 + 10 x 0) / 10
    1: 0.3,  # (1 x 0 + 9 x 1/3) / 10
    2: 0.6,  # (2 x 1/3 + 8 x 2/3) / 10
    3: 0.9,  # (3 x 2/3 + 7 x 1) / 10
    4: 1.0,  # (4 x 1 + 6 x 1) / 10
    10: 1.0,
}


@pytest.mark.parametrize("count", range(11))
def test_soft_score_is_the_official_rule_for_ten_annotators(count):
    humans = ["cat"] * count + ["dog"] * (10 - count)
    assert soft_score(count) == pytest.approx(choose_all_but_one(count), abs=1e-15)
    assert soft_score(count) == pytest.approx(vqa_accuracy("cat", humans), abs=1e-15)
    assert soft_score(count) == ON_PAPER.get(count, 1.0)


@pytest.mark.parametrize(
    ("count", "humans", "on_paper"),
    [
        (1, 9, 8 / 27),  # (1 x 0 + 8 x 1/3) / 9, not 0.3
        (3, 5, 4 / 5),  # (3 x 2/3 + 2 x 1) / 5
        (2, 3, 4 / 9),  # (2 x 1/3 + 1 x 2/3) / 3
        (1, 1, 0),  # nobody is left to agree
    ],
)
def test_another_number_of_annotators(count, humans, on_paper):
    said = ["cat"] * count + ["dog"] * (humans - count)
    assert vqa_accuracy("cat", said) == pytest.approx(on_paper)
    assert choose_all_but_one(count, humans) == pytest.approx(on_paper)
    assert soft_score(count) != pytest.approx(on_paper), "the labels are for ten"


def test_accuracy_by_hand():
    humans = ["Two", "2", "two.", "3", "3", "4", "5", "6", "7", "8"]
    assert vqa_accuracy("2", humans) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert vqa_accuracy("the 3", humans) == pytest.approx(0.6)
    assert vqa_accuracy("9", humans) == 0


@pytest.mark.parametrize(
    ("answer", "humans", "accuracy"),
    [
        (" yes\n", ["yes\t"] * 10, 1),  # stripped
        ("2", ["two"] * 10, 0),  # all agree: as they stand
        ("yes", ["Yes"] * 10, 0),  # all agree: not even lowered
        ("yes", ["Yes"] * 9 + ["no"], 1),  # they differ: normalised, so lowered
        ("the dog", ["dog"] * 10, 0),
        ("the dog", ["a dog"] * 9 + ["Dog."], 1),
        ("yes", ["yes"] * 9 + ["yes\n"], 1),  # the same once stripped: they agree
        ("yes!", ["yes"] * 9 + ["yes\n"], 0),
        ("none", ["0", "none", *"abcdefgh"], 0.6),  # number words on both sides
    ],
)
def test_answers_are_normalised_only_where_humans_differ(answer, humans, accuracy):
    assert vqa_accuracy(answer, humans) == pytest.approx(accuracy)


def annotation(question, humans, answer_type="other", question_type="what"):
    answers = [{"answer": human, "answer_id": number} for number, human in enumerate(humans, 1)]
    return Annotation.of(
        {"question_id": question, "answers": answers, "answer_type": answer_type, "question_type": question_type}
    )


def literally(answer, answers):
    """The rule as the official program states it, of entries as they stand: the others are those that are not equal."""
    accuracies = []
    for left_out in answers:
        others = [entry for entry in answers if entry != left_out]
        accuracies.append(min(1, sum(entry["answer"] == answer for entry in others) / 3))
    return sum(accuracies) / len(accuracies)


@pytest.mark.parametrize("count", range(1, 11))
def test_answer_ids_are_what_tells_annotators_apart(count):
    humans = ["cat"] * count + [f"dog {number}" for number in range(10 - count)]
    numbered = [{"answer": human, "answer_id": number} for number, human in enumerate(humans, 1)]
    assert literally("cat", numbered) == pytest.approx(vqa_accuracy("cat", humans))
    without = [{"answer": human} for human in humans]
    if count > 1:
        assert literally("cat", without) < vqa_accuracy("cat", humans), (
            "all who said the same would be left out at once"
        )
    with pytest.raises(ValueError, match="answer 1 lacks answer_id"):
        Annotation.of({"question_id": 1, "answers": without, "answer_type": "other", "question_type": "what"})


def test_the_evaluation_by_hand():
    annotations = [
        annotation(1, ["yes"] * 10, "yes/no", "is the"),
        annotation(2, ["2", "two", *"abcdefgh"], "number", "how many"),
        annotation(3, ["red", *"abcdefghi"], "other", "what color"),
        annotation(4, ["no"] * 10, "yes/no", "is the"),
        annotation(5, ["cat"] * 10),
    ]
    answers = {4: "yes", 3: "red", 2: "2", 1: "yes", 2**40: "cat"}
    result = evaluate(answers, annotations)
    # 1, 0.6, 0.3 and 0 of four: 47.5; both yes/no: 50
    assert result.overall == 47.5
    assert result.answer_type == {"number": 60.0, "other": 30.0, "yes/no": 50.0}
    assert result.question_type == {"how many": 60.0, "is the": 50.0, "what color": 30.0}
    assert (result.annotated, result.scored, result.unknown) == (5, 4, [2**40])


def test_the_evaluation_rounds_to_two_decimals():
    annotations = [annotation(number, ["red"] * 10) for number in range(3)]
    assert evaluate({0: "red", 1: "blue", 2: "blue"}, annotations).overall == 33.33
    assert evaluate({0: "red", 1: "red", 2: "blue"}, annotations).overall == 66.67
    assert evaluate({}, annotations).overall is None


def test_labels_miss_what_only_normalising_finds():
    """Training's labels count raw answers of the vocabulary; the official program normalises them first."""
    humans = ["two", "two", "2", "2", *"abcdef"]
    assert soft_score(humans.count("2")) == 0.6
    assert vqa_accuracy("2", humans) == 1.0
