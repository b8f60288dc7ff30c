"""Statements about pairs of images, each as often true as false: the text alone tells nothing."""

from typing import NamedTuple

import numpy as np

from vltune.data.shapes.language import (
    COLOUR,
    KIND,
    OTHER_SIZE,
    PLACE,
    PLACED,
    RELATING,
    SHAPE,
    SIZE,
    draw_captions,
    hold,
    matches,
    noun,
)
from vltune.data.shapes.scenes import POSITIONS, RELATIONS, Scenes

PER_PAIR = 4
_TRIES = 16  # proposals for every statement that is still missing; then it may take another form
_LONGEST_CLAUSE = 10  # words


class _Form(NamedTuple):
    """What a statement says of two images, and what it is worth asking.

    The left and the right image each give a number: of the objects described if `counts`, otherwise 1 or 0 for whether
    the clause holds.  Two counts meet in the sign of left minus right, two truths in their sum.
    asked: what they come to (where the statement is true, where it is false), either tried as often.
    """

    text: str
    weight: float  # how often it is tried, relative to the others; some find what they ask for less often
    counts: bool
    asked: tuple[tuple[int, int], tuple[int, int]]


FORMS = (
    _Form("there is {clause} in each image", 2, False, ((2, 1), (2, 0))),
    _Form("there is {clause} in only 1 image", 1, False, ((1, 0), (1, 2))),
    _Form("there is {clause} in at most 1 image", 2, False, ((0, 2), (1, 2))),
    _Form("there is {clause} in the left image and {other} in the right image", 0.6, False, ((2, 1), (2, 0))),
    _Form("there are more {nouns} in the left image than in the right image", 0.8, True, ((1, 0), (1, -1))),
    _Form("there are more {nouns} in the right image than in the left image", 0.8, True, ((-1, 0), (-1, 1))),
    _Form("there are as many {nouns} in the left image as in the right image", 3, True, ((0, 1), (0, -1))),
)
_COUNTS = np.array([form.counts for form in FORMS])
_TWO_CLAUSES = np.array(["{other}" in form.text for form in FORMS])
_SHARE = np.array([form.weight for form in FORMS]) / sum(form.weight for form in FORMS)
_ASKED = np.array([form.asked for form in FORMS])
_NOTHING_TO_COUNT = 9  # is never asked


def state(rng: np.random.Generator, left: Scenes, right: Scenes) -> list[list[str]]:
    """Four statements for each two successive pairs: the first two hold of the first pair only, the others of the
    second only."""
    count = len(left) // 2 * PER_PAIR
    slot = np.arange(count)
    true_of = slot // PER_PAIR * 2 + slot % PER_PAIR // 2
    texts = [""] * count
    todo = slot
    while len(todo):
        form = rng.choice(len(FORMS), len(todo), p=_SHARE)
        asked = _ASKED[form, rng.integers(0, 2, len(todo))].repeat(_TRIES, 0)
        forms, pair = form.repeat(_TRIES), true_of[todo].repeat(_TRIES)
        proposed = _propose(rng, forms, pair, left, right)
        found = [_outcome(forms, proposed, left[which], right[which]) for which in (pair, pair ^ 1)]
        good = (np.stack(found, 1) == asked).all(1).reshape(-1, _TRIES)
        for row in np.flatnonzero(good.any(1)):
            texts[todo[row]] = _text(FORMS[form[row]], *proposed[row * _TRIES + good[row].argmax()].tolist())
        missing = {k for k, text in enumerate(texts) if not text}
        todo = np.array(sorted(missing | {k for k in range(1, count, 2) if texts[k] == texts[k - 1]}), int)
    return [texts[k : k + PER_PAIR] for k in range(0, count, PER_PAIR)]


def _propose(rng: np.random.Generator, forms: np.ndarray, pair: np.ndarray, left: Scenes, right: Scenes) -> np.ndarray:
    """(N, 2, 8) clauses, true of some image of the two pairs, that say less than captions do: perhaps "a red object"."""
    drawn = []
    for side in (left, right):
        which = pair ^ rng.integers(0, 2, len(pair))
        drawn.append(draw_captions(rng, side[which], _LONGEST_CLAUSE)[:, 0])
    swapped = (rng.random(len(pair)) < 0.5) & ~_TWO_CLAUSES[forms]
    clauses = np.where(swapped[:, None, None], np.stack(drawn[::-1], 1), np.stack(drawn, 1))
    for first in (SIZE, OTHER_SIZE):
        unsaid = rng.integers(0, 3, clauses.shape[:2])
        clauses[..., first + COLOUR - SIZE] *= unsaid != 1
        clauses[..., first + SHAPE - SIZE] *= unsaid != 2
    return clauses


def _outcome(forms: np.ndarray, clauses: np.ndarray, left: Scenes, right: Scenes) -> np.ndarray:
    """(N,) what each statement comes to on its pair of images."""
    first, last = clauses[:, :1], np.where(_TWO_CLAUSES[forms][:, None], clauses[:, 1], clauses[:, 0])[:, None]
    counts = [matches(side, first[..., SIZE:PLACE]).sum((1, 2)) for side in (left, right)]
    compared = np.where(counts[0] + counts[1] > 0, np.sign(counts[0] - counts[1]), _NOTHING_TO_COUNT)
    return np.where(_COUNTS[forms], compared, hold(left, first) + hold(right, last).astype(int))


def _text(form: _Form, clause: list[int], other: list[int]) -> str:
    nouns = noun(*clause[SIZE:PLACE], plural=True)
    return form.text.format(clause=_clause(clause), other=_clause(other), nouns=nouns)


def _clause(clause: list[int]) -> str:
    text = f"a {noun(*clause[SIZE:PLACE])}"
    if clause[KIND] == PLACED:
        return f"{text} at the {POSITIONS[clause[PLACE]]}"
    if clause[KIND] == RELATING:
        return f"{text} {RELATIONS[clause[PLACE]]} a {noun(*clause[OTHER_SIZE:])}"
    return text
