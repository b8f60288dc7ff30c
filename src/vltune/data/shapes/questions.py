"""Questions about scenes: every referent is unambiguous, answers are balanced, ten simulated people answer."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vltune.data.shapes.language import noun
from vltune.data.shapes.scenes import COLOURS, POSITIONS, RELATED, RELATIONS, SHAPES, SIZES, Scenes
from vltune.errors import UserError

MAX_PER_IMAGE = 4  # every scene has at least four kinds of question with an unambiguous referent
_NUMBERS = tuple(map(str, range(6)))
ANSWERS = (*_NUMBERS, "no", "yes", *SIZES, *COLOURS, *SHAPES, *POSITIONS)
_FIRST = {name: ANSWERS.index(name[0]) for name in (_NUMBERS, SIZES, COLOURS, SHAPES, POSITIONS)}
_NO = ANSWERS.index("no")


class PosedQuestion(NamedTuple):
    text: str
    question_type: str  # how it begins, as the official annotations tell
    answer_type: str  # "number", "yes/no" or "other"
    answer: str


class _Kind(NamedTuple):
    begins: str
    rest: str
    answer_type: str
    weight: float  # how often it is asked, relative to the others


_KINDS = {
    "count": _Kind("how many", "{nouns} are there?", "number", 6),
    "color": _Kind("what color is the", "{noun}?", "other", 4),
    "shape": _Kind("what shape is the", "{noun}?", "other", 2),
    "size": _Kind("what size is the", "{noun}?", "other", 1.2),
    "position": _Kind("where is the", "{noun}?", "other", 1.5),
    "related color": _Kind("what color is the object", "{relation} the {noun}?", "other", 4),
    "related shape": _Kind("what shape is", "{relation} the {noun}?", "other", 4),
    "existence": _Kind("is there a", "{noun}?", "yes/no", 0.8),
}
# Descriptions (126, 3): size, colour and shape, 0 where it is unsaid.
_SAID = np.array([*np.ndindex(len(SIZES) + 1, len(COLOURS) + 1, len(SHAPES) + 1)])


class _Candidates(NamedTuple):
    """N questions of one kind for each of B scenes.  N counts descriptions, or relations x descriptions."""

    valid: np.ndarray  # (B, N) bool
    answer: np.ndarray  # (B, N) index into ANSWERS
    group: np.ndarray  # (N,): answers are balanced within each group


def _candidates(scenes: Scenes) -> Iterator[_Candidates]:
    """The candidates of each kind, in the order of _KINDS."""
    attributes = np.stack([scenes.size, scenes.colour, scenes.shape], -1)[:, :, None]
    fits = ((attributes == _SAID) | (_SAID == 0)).all(-1) & (scenes.shape > 0)[..., None]  # (B, 9, 126)
    count, cell = fits.sum(1), fits.argmax(1)
    one = count == 1
    unsaid = _SAID == 0
    specific = (~unsaid).sum(1)
    ungrouped = np.zeros(len(_SAID), int)

    yield _Candidates(np.broadcast_to(specific < 3, count.shape), count, specific)
    for values, names, column in ((scenes.colour, COLOURS, 1), (scenes.shape, SHAPES, 2), (scenes.size, SIZES, 0)):
        answer = _FIRST[names] + np.take_along_axis(values, cell, 1) - 1
        yield _Candidates(one & unsaid[:, column], answer, ungrouped)
    yield _Candidates(one, _FIRST[POSITIONS] + cell, ungrouped)

    # (B, 4, 9): how many objects lie [left of, ...] each cell, and the cell of one of them
    near = RELATED & (scenes.shape > 0)[:, None, :, None]
    number, neighbour = near.sum(2), near.argmax(2)
    at = np.broadcast_to(cell[:, None], (len(scenes), len(RELATIONS), len(_SAID)))
    single = one[:, None] & (np.take_along_axis(number, at, 2) == 1)
    who = np.take_along_axis(neighbour, at, 2).reshape(len(scenes), -1)
    for values, names, column in ((scenes.colour, COLOURS, 1), (scenes.shape, SHAPES, 2)):
        answer = _FIRST[names] + np.take_along_axis(values, who, 1) - 1
        yield _Candidates(single.reshape(len(scenes), -1), answer, np.tile(_SAID[:, column], len(RELATIONS)))

    yield _Candidates(np.broadcast_to(specific == 1, count.shape), _NO + (count > 0), ungrouped)


def _choose(rng: np.random.Generator, candidates: _Candidates) -> np.ndarray:
    """(B,) one valid candidate for each scene, so weighted that a group's answers are about equally frequent."""
    cells = candidates.group * len(ANSWERS) + candidates.answer
    shape = candidates.group.max() + 1, len(ANSWERS)
    possible = np.bincount(cells[candidates.valid], minlength=shape[0] * shape[1]).reshape(shape) > 0
    race = np.where(candidates.valid, rng.exponential(size=candidates.valid.shape), np.inf)
    weight = np.ones(shape)
    for _ in range(6):
        chosen = (race / weight.ravel()[cells]).argmin(1)
        seen = np.bincount(cells[np.arange(len(cells)), chosen], minlength=weight.size).reshape(shape)
        even = seen.sum(1, keepdims=True) / possible.sum(1, keepdims=True).clip(1)
        weight *= (even + 1) / (seen + 1)
    return chosen


def ask(rng: np.random.Generator, scenes: Scenes, per_image: int) -> list[list[PosedQuestion]]:
    """`per_image` (1 to 4) questions about each scene, each of another kind."""
    if not 1 <= per_image <= MAX_PER_IMAGE:
        raise UserError(f"questions_per_image={per_image}: 1 to {MAX_PER_IMAGE} kinds of question fit every scene")
    questions = [[] for _ in range(len(scenes))]
    candidates = list(_candidates(scenes))
    weights = np.array([kind.weight for kind in _KINDS.values()])
    possible = np.stack([candidate.valid.any(1) for candidate in candidates], 1)
    order = np.where(possible, rng.exponential(size=possible.shape) / weights, np.inf).argsort(1)[:, :per_image]
    for number, (kind, candidate) in enumerate(zip(_KINDS.values(), candidates, strict=True)):
        rows = np.flatnonzero((order == number).any(1))
        if not len(rows):
            continue
        mine = _Candidates(candidate.valid[rows], candidate.answer[rows], candidate.group)
        chosen = _choose(rng, mine)
        answers = mine.answer[np.arange(len(rows)), chosen]
        for row, pick, answer in zip(rows.tolist(), chosen.tolist(), answers.tolist(), strict=True):
            relation, description = divmod(pick, len(_SAID))
            nouns = {"noun": noun(*_SAID[description]), "nouns": noun(*_SAID[description], plural=True)}
            rest = kind.rest.format(**nouns, relation=RELATIONS[relation])
            questions[row].append(
                PosedQuestion(f"{kind.begins} {rest}", kind.begins, kind.answer_type, ANSWERS[answer])
            )
    return questions


def _confusions() -> dict[str, tuple[str, ...]]:
    """What a hasty person might say instead of each answer."""
    near = {"yes": ("no",), "no": ("yes",), "small": ("large",), "large": ("small",)}
    near |= {"red": ("purple",), "green": ("cyan", "yellow"), "blue": ("purple", "cyan"), "yellow": ("green",)}
    near |= {"purple": ("blue", "red"), "cyan": ("blue", "green"), "circle": ("square",), "square": ("circle",)}
    near |= {"triangle": ("star",), "star": ("cross", "triangle"), "cross": ("star",)}
    for ordered in (_NUMBERS, POSITIONS[:3], POSITIONS[3:6], POSITIONS[6:], *(POSITIONS[k::3] for k in range(3))):
        for one, other in pairwise(ordered):
            near[one] = (*near.get(one, ()), other)
            near[other] = (*near.get(other, ()), one)
    return near


_CONFUSIONS = _confusions()


def human_answers(rng: np.random.Generator, answers: list[str]) -> list[list[str]]:
    """Ten people's answers to each question: mostly `answers`, up to three of the ten a near miss."""
    slips = rng.choice(4, len(answers), p=[0.55, 0.25, 0.12, 0.08]).tolist()
    people = rng.random((len(answers), 10)).argsort(1)[:, :3].tolist()
    which = rng.integers(0, 12, (len(answers), 3)).tolist()
    given = []
    for answer, slip, who, misses in zip(answers, slips, people, which, strict=True):
        ten = [answer] * 10
        near = _CONFUSIONS[answer]
        for person, miss in zip(who[:slip], misses, strict=False):
            ten[person] = near[miss % len(near)]
        given.append(ten)
    return given
