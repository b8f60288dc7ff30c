"""The official VQA accuracy: how answers are normalised and scored.

Source: Antol et al., "VQA: Visual Question Answering", and the evaluation program published with VQAv2
(github.com/GT-Vision-Lab/VQA at a013f00, `vqaEvaluation/vqaEval.py`), whose rules are kept literally, oddities included.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

NUMBERED = "numbered_answers"
"""What a record calls `submission` whose data had no vocabulary: it predicted numbers of answers, which no server knows."""
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_DIGIT_COMMA = re.compile(r"\d,\d")
_SHOWN = 40  # characters of a value
_PERIODS_REMOVED = 32  # the official call passes re.UNICODE (32) where `re.sub` expects a count
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(value) for value, word in enumerate(_NUMBERS)}
_ARTICLES = {"a", "an", "the"}
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# A word that lacks one apostrophe -> the contraction.  "somebody'd" is the one that the official table turns round.
_CONTRACTIONS = {
    word[:i] + word[i + 1 :]: word for word in _CONTRACTED.split() for i, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}


def _strip(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=2**16)
def normalise(answer: str) -> str:
    """The official form of an answer: punctuation, case, number words, articles, contractions.

    A punctuation mark is deleted where the answer has it beside a space (or holds a comma between digits), and becomes
    a space elsewhere; a period goes unless a digit follows it.
    """
    text = _strip(answer)
    has_digit_comma = _DIGIT_COMMA.search(text) is not None
    spaced = {mark for mark in _PUNCTUATION if f"{mark} " in text or f" {mark}" in text}
    text = text.translate({ord(m): "" if has_digit_comma or m in spaced else " " for m in _PUNCTUATION})
    text = _PERIOD.sub("", text, count=_PERIODS_REMOVED)
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, human_answers: Sequence[str]) -> float:
    """Official accuracy in [0, 1] of one answer against the ten human ones.

    The mean, over leaving out each human in turn, of min(matches among the others / 3, 1).  As in the official program,
    answers are normalised, and so lowered, only where the humans disagree; where all say the same, only the very same
    string is right.
    """
    answer, humans = _strip(answer), [_strip(human) for human in human_answers]
    if len(set(humans)) > 1:
        answer, humans = normalise(answer), [normalise(human) for human in humans]
    matches = [human == answer for human in humans]
    return sum(min((sum(matches) - match) / 3, 1) for match in matches) / len(matches)


def soft_score(count: int) -> float:
    """The same accuracy of an answer that `count` of ten humans gave: 0, 0.3, 0.6, 0.9 or 1.  With other than ten humans
    the official rule gives other values."""
    return (0.0, 0.3, 0.6, 0.9, 1.0)[min(count, 4)]


class Annotation(NamedTuple):
    """What the evaluation reads of an entry of the official annotation files."""

    question_id: int
    answers: list[str]
    answer_type: str
    question_type: str

    @classmethod
    def of(cls, entry: dict) -> "Annotation":
        """Raises KeyError, TypeError or ValueError where `entry` is none.

        The official program leaves out an annotator at a time by leaving out all entries equal to his.  That is he alone
        where each has an `answer_id` of his own, as in the official files; without, everybody of the same answer would go,
        and accuracies with them."""
        humans, ids = [], set()
        if not isinstance(entry, dict):
            raise TypeError(f"{_told(entry)}, no object")
        if not isinstance(entry["answers"], list):
            raise TypeError(f"answers is {_told(entry['answers'])}, no list")
        for number, human in enumerate(entry["answers"], 1):
            if not isinstance(human, dict):
                raise TypeError(f"answer {number} is {_told(human)}, no object")
            if not isinstance(human["answer"], str):
                raise ValueError(f"answer {number} is {_told(human['answer'])}, no text")
            if "answer_id" not in human:
                raise ValueError(f"answer {number} lacks answer_id, by which one annotator is told from another")
            if isinstance(human["answer_id"], list | dict | type(None)):
                raise ValueError(f"answer {number} has answer_id {_told(human['answer_id'])}, which tells nobody")
            if human["answer_id"] in ids:
                raise ValueError(f"answer_id {_told(human['answer_id'])} stands there twice")
            ids.add(human["answer_id"])
            humans.append(human["answer"])
        if not humans:
            raise ValueError("no answers")
        for kind in ("answer_type", "question_type"):
            if not isinstance(entry[kind], str):
                raise ValueError(f"{kind} is {_told(entry[kind])}, no text")
        return cls(question_id(entry), humans, entry["answer_type"], entry["question_type"])


def question_id(entry: dict) -> int:
    """Of an entry of an official file.  Raises KeyError, TypeError or ValueError where it has none."""
    if not isinstance(entry, dict):
        raise TypeError(f"{_told(entry)}, no object")
    id = entry["question_id"]
    if type(id) is not int or not 0 <= id < 2**63:
        raise ValueError(f"question_id is {_told(id)}, no whole number from 0 to {2**63 - 1}")
    return id


def _told(value: object) -> str:
    """As it stands in the file, cut short."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@dataclass(frozen=True)
class Evaluation:
    """Official accuracies in percent, rounded to two decimals as the official program does."""

    overall: float | None
    """None where nothing was scored."""
    answer_type: dict[str, float]
    question_type: dict[str, float]
    annotated: int
    """How many questions the annotations are of, answered or not."""
    scored: int
    unknown: list[int]
    """Questions that were answered and are not annotated."""


def evaluate(answers: Mapping[int, str], annotations: Iterable[Annotation]) -> Evaluation:
    """What the official program says of answers by question id; annotated questions without an answer are left out."""
    left = dict(answers)
    overall, by_answer_type, by_question_type = [], defaultdict(list), defaultdict(list)
    annotated = 0
    for annotation in annotations:
        annotated += 1
        answer = left.pop(annotation.question_id, None)
        if answer is not None:
            accuracy = vqa_accuracy(answer, annotation.answers)
            overall.append(accuracy)
            by_answer_type[annotation.answer_type].append(accuracy)
            by_question_type[annotation.question_type].append(accuracy)
    return Evaluation(
        overall=_percent(overall) if overall else None,
        answer_type={kind: _percent(found) for kind, found in sorted(by_answer_type.items())},
        question_type={kind: _percent(found) for kind, found in sorted(by_question_type.items())},
        annotated=annotated,
        scored=len(overall),
        unknown=list(left),
    )


def _percent(accuracies: list[float]) -> float:
    return round(100 * sum(accuracies) / len(accuracies), 2)
