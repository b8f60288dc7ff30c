"""Captions: drawn as integer arrays, checked against scenes, turned into words, all in batches.

A caption is up to three clauses joined by "and": "a large red circle", "... at the top left", or "... above a blue
square".  A relation holds along one row or one column of the grid, at any distance.
"""

import numpy as np

from vltune.data.shapes.scenes import CELLS, COLOURS, POSITIONS, RELATED, RELATIONS, SHAPES, SIZES, Scenes

MAX_CLAUSES = 3
NO_CLAUSE, BARE, PLACED, RELATING = range(4)
# A clause is 8 integers: its kind; size, colour and shape of what it is about (0: unsaid, of the shape "object"); a
# position or a relation; and size, colour and shape of what the relation is to.
KIND, SIZE, COLOUR, SHAPE, PLACE, OTHER_SIZE, OTHER_COLOUR, OTHER_SHAPE = range(8)
FIELDS = 8
PLACES = 11  # for words, of a clause
_CHOICES = np.array([0, len(SIZES), len(COLOURS), len(SHAPES), CELLS, len(SIZES), len(COLOURS), len(SHAPES)])

# Index 0 stands for "no word".
WORDS = (
    "",
    *dict.fromkeys(" ".join(("and a at the", *SIZES, *COLOURS, *SHAPES, *POSITIONS, *RELATIONS, "object")).split()),
)
_WORD = {word: index for index, word in enumerate(WORDS)}


def _table(phrases: tuple[str, ...]) -> np.ndarray:
    """(phrases, 2) word indices of phrases of one or two words."""
    return np.array([[_WORD[word] for word in [*phrase.split(), "", ""][:2]] for phrase in phrases])


_SIZE_WORDS, _COLOUR_WORDS, _SHAPE_WORDS = (_table(("", *names))[:, 0] for names in (SIZES, COLOURS, SHAPES))
_POSITION_WORDS = _table(POSITIONS)
_RELATION_WORDS = np.concatenate([_table(RELATIONS), np.zeros((CELLS - len(RELATIONS), 2), int)])
_RELATION = np.where(RELATED.any(0), RELATED.argmax(0), -1)  # (9, 9): the relation of cell i to cell j, -1 if none


def draw_captions(rng: np.random.Generator, scenes: Scenes, max_words: int) -> np.ndarray:
    """One true caption of at most `max_words` words (10 or more) for each scene: clauses (B, 3, 8) int64."""
    count = len(scenes)
    occupied = scenes.shape > 0
    about = np.where(occupied, rng.random((count, CELLS)), 2).argsort(1)[:, :MAX_CLAUSES]
    wanted = np.minimum(rng.integers(2, MAX_CLAUSES + 1, count), occupied.sum(1))
    partners = occupied[:, None] & (_RELATION[about] >= 0)
    partner = (partners * rng.random(partners.shape)).argmax(2)
    kind = rng.choice([BARE, PLACED, RELATING], (count, MAX_CLAUSES), p=[0.15, 0.4, 0.45])
    kind = np.where((kind == RELATING) & ~partners.any(2), PLACED, kind)
    said = rng.random((2, count, MAX_CLAUSES)) < 0.5

    clauses = np.zeros((count, MAX_CLAUSES, FIELDS), int)
    rows = np.arange(count)[:, None]
    clauses[..., KIND] = kind
    clauses[..., SIZE : SHAPE + 1] = np.stack(
        [scenes.size[rows, about] * said[0], scenes.colour[rows, about], scenes.shape[rows, about]], -1
    )
    clauses[..., PLACE] = np.select([kind == PLACED, kind == RELATING], [about, _RELATION[about, partner]])
    other = np.stack(
        [scenes.size[rows, partner] * said[1], scenes.colour[rows, partner], scenes.shape[rows, partner]], -1
    )
    clauses[..., OTHER_SIZE:] = other * (kind == RELATING)[..., None]

    length = (to_words(clauses).reshape(count, MAX_CLAUSES, PLACES) > 0).sum(2)
    kept = (np.arange(MAX_CLAUSES) < wanted[:, None]) & (length.cumsum(1) <= max_words)
    return clauses * kept[..., None]


def hold(scenes: Scenes, clauses: np.ndarray) -> np.ndarray:
    """(B,) bool: is every clause of a caption true of some objects in its scene?"""
    subject, other = matches(scenes, clauses[..., SIZE:PLACE]), matches(scenes, clauses[..., OTHER_SIZE:])
    place = clauses[..., PLACE]
    at_place = np.take_along_axis(subject, place[..., None], 2)[..., 0]
    related = RELATED[np.minimum(place, len(RELATIONS) - 1)] & subject[..., :, None] & other[..., None, :]
    kind = clauses[..., KIND]
    kinds = [kind == BARE, kind == PLACED, kind == RELATING]
    return np.select(kinds, [subject.any(2), at_place, related.any((2, 3))], True).all(1)


def truth(scenes: Scenes, clauses: np.ndarray) -> np.ndarray:
    """(B, C) bool: which of B scenes each of C captions holds of."""
    flat = clauses.reshape(-1, FIELDS)
    subject, place = matches(scenes, flat[:, SIZE:PLACE]), flat[:, PLACE]
    bare, placed, relating = (np.flatnonzero(flat[:, KIND] == kind) for kind in (BARE, PLACED, RELATING))
    found = np.ones(subject.shape[:2], bool)
    found[:, bare] = subject[:, bare].any(2)
    found[:, placed] = subject[:, placed, place[placed]]
    other = matches(scenes, flat[relating, OTHER_SIZE:]).transpose(1, 0, 2).astype(np.float32)
    reached = (other @ RELATED[place[relating]].transpose(0, 2, 1).astype(np.float32)).transpose(1, 0, 2) > 0
    found[:, relating] = (subject[:, relating] & reached).any(2)
    return found.reshape(len(scenes), *clauses.shape[:2]).all(2)


def matches(scenes: Scenes, descriptions: np.ndarray) -> np.ndarray:
    """(B, N, 9) bool: which cells hold what each of N (size, colour, shape) describes, 0 where it is unsaid.

    descriptions: (B, N, 3), or (N, 3) for all scenes."""
    fits = (scenes.shape > 0)[:, None]
    for k, values in enumerate((scenes.size, scenes.colour, scenes.shape)):
        said = descriptions[..., k, None]
        fits = fits & ((values[:, None] == said) | (said == 0))
    return fits


def falsify(rng: np.random.Generator, scenes: Scenes, clauses: np.ndarray) -> np.ndarray:
    """Captions changed in exactly one word, so that they no longer hold."""
    edited = clauses.copy()
    todo = np.arange(len(clauses))
    tries = 8
    while len(todo):
        rows = todo.repeat(tries)
        clause = rng.integers(0, (clauses[rows, :, KIND] != NO_CLAUSE).sum(1))
        field = rng.integers(SIZE, FIELDS, len(rows))
        proposed = clauses[rows]
        first = (field != PLACE).astype(int)
        proposed[np.arange(len(rows)), clause, field] = first + rng.integers(0, _CHOICES[field])
        before, after = to_words(clauses[rows]), to_words(proposed)
        one_word = ((before != after).sum(1) == 1) & ((before > 0) == (after > 0)).all(1)
        good = (one_word & ~hold(scenes[rows], proposed)).reshape(-1, tries)
        done = good.any(1)
        edited[todo[done]] = proposed.reshape(-1, tries, *proposed.shape[1:])[done, good.argmax(1)[done]]
        todo = todo[~done]
    return edited


def to_words(clauses: np.ndarray) -> np.ndarray:
    """(B, 33) int64 indices into WORDS, 11 places a clause in reading order, 0 where a place is empty."""
    kind = clauses[..., KIND]
    there, placed, relating = kind != NO_CLAUSE, kind == PLACED, kind == RELATING
    position = _POSITION_WORDS[clauses[..., PLACE]]
    relation = _RELATION_WORDS[clauses[..., PLACE]]
    article, unnamed = _WORD["a"], _WORD["object"]
    first = np.zeros(clauses.shape[1], int)
    first[1:] = _WORD["and"]
    words = [
        there * first,
        there * article,
        _SIZE_WORDS[clauses[..., SIZE]],
        _COLOUR_WORDS[clauses[..., COLOUR]],
        np.where(there & (clauses[..., SHAPE] == 0), unnamed, _SHAPE_WORDS[clauses[..., SHAPE]]),
        relating * relation[..., 0] + placed * _WORD["at"],
        relating * relation[..., 1] + placed * _WORD["the"],
        relating * article + placed * position[..., 0],
        relating * _SIZE_WORDS[clauses[..., OTHER_SIZE]] + placed * position[..., 1],
        _COLOUR_WORDS[clauses[..., OTHER_COLOUR]],
        np.where(relating & (clauses[..., OTHER_SHAPE] == 0), unnamed, _SHAPE_WORDS[clauses[..., OTHER_SHAPE]]),
    ]
    return np.stack(words, -1).reshape(len(clauses), MAX_CLAUSES * PLACES)


def noun(size: int, colour: int, shape: int, plural: bool = False) -> str:
    """Such as "large red circle": 0 leaves a word out, of the shape it makes "object"."""
    words = (("", *SIZES)[size], ("", *COLOURS)[colour], ("object", *SHAPES)[shape])
    singular = " ".join(filter(None, words))
    return singular + ("es" if singular.endswith("s") else "s") * plural


def to_text(words: np.ndarray) -> list[str]:
    """Captions as strings."""
    return [" ".join(WORDS[index] for index in row if index) for row in words.tolist()]
