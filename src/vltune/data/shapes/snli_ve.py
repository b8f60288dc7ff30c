"""Writes the embedded world as SNLI-VE in its official raw layout.

In each picture a grey card lies on one cell.  What holds whatever lies under the card is entailment; what is false
whatever lies there is contradiction; what may be true or false, as the card hides an object or none, is neutral.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from vltune.data.shapes.language import MAX_CLAUSES, draw_captions, hold, to_text, to_words
from vltune.data.shapes.render import cell_pixels, pictures, write_image
from vltune.data.shapes.scenes import COLOURS, SHAPES, SIZES, Scenes, draw

IMAGES: Mapping[str, int] = {"train": 2000, "val": 500, "test": 3000}
LABELS = ("entailment", "neutral", "contradiction")
_NAMES = {"train": "train", "val": "dev", "test": "test"}
_SET = 4  # images: two scenes, each with the card on two of its objects
_MAX_WORDS = 12
_LIKENED = 16  # scenes among which the most similar one is a scene's counterpart
_TRIES = 12  # captions of a picture, before its set is given up
_GREY = 140
_FIRST_NAME = 10**9  # Flickr's numbers have ten digits
_OBJECTS = np.array([*np.ndindex(len(SIZES), len(COLOURS), len(SHAPES))]) + 1


def write_raw(out: Path, seed: int = 0, images: Mapping[str, int] = IMAGES) -> None:
    """Write `flickr30k-images/*.jpg` and `snli_ve_*.jsonl` to the folder `out`; the same arguments give the same bytes.

    images: how many of each split.  Every image has one hypothesis of each label, and every hypothesis stands with each
    label at one of its set's four images, so that neither alone tells the label; the last set may be a part of one.
    No two splits share a layout of objects; under the card two of them may look alike (of 3,000 test pictures 61 look as a
    training picture does).  Of the official fields, the parses of the sentences are left out.
    """
    folder = out / "flickr30k-images"
    folder.mkdir(parents=True)
    name = _FIRST_NAME
    for number, (split, part) in enumerate(_NAMES.items()):
        rng = np.random.default_rng((seed, number))
        visible, card, hypotheses = draw_sets(rng, -(-images[split] // _SET), split)
        premises = to_text(to_words(draw_captions(rng, visible, _MAX_WORDS)))
        lines = []
        for row, pixels in enumerate(islice(pictures(visible), images[split])):
            pixels[cell_pixels(card[row])] = _GREY
            write_image(folder / f"{name}.jpg", pixels)
            for label, hypothesis in zip(LABELS, (row, row ^ 1, row ^ 2), strict=True):
                lines.append(_example(str(name), premises[row], hypotheses[hypothesis], label))
            name += 1
        (out / f"snli_ve_{part}.jsonl").write_text("".join(lines), encoding="utf-8")


def _example(image: str, premise: str, hypothesis: str, label: str) -> str:
    example = {
        "Flickr30K_ID": image,
        "annotator_labels": [label],
        "captionID": f"{image}.jpg#0",
        "gold_label": label,
        "pairID": f"{image}.jpg#0r1{label[0]}",
        "sentence1": premise,
        "sentence2": hypothesis,
    }
    return json.dumps(example) + "\n"


def draw_sets(rng: np.random.Generator, count: int, split: str) -> tuple[Scenes, np.ndarray, list[str]]:
    """4 * count pictures: what is visible, the card's cell (B,), and a hypothesis for each.

    In each four, scene S with its card on one object, S with it on another, T likewise: hypothesis i is entailed by
    picture i, neutral in picture i ^ 1 and contradicted by picture i ^ 2.
    """
    parts: list[tuple[Scenes, np.ndarray, np.ndarray]] = []
    while (missing := count - sum(len(part[1]) for part in parts) // _SET) > 0 or not parts:
        visible, card = _draw_pictures(rng, missing + 16, split)
        clauses, good = _hypothesise(rng, visible, card)
        kept = np.flatnonzero(good.reshape(-1, _SET).all(1))[:missing]
        rows = (kept[:, None] * _SET + np.arange(_SET)).ravel()
        parts.append((visible[rows], card[rows], clauses[rows]))
    scenes, cards, clauses = zip(*parts, strict=True)
    return Scenes.concatenate(scenes), np.concatenate(cards), to_text(to_words(np.concatenate(clauses)))


def _draw_pictures(rng: np.random.Generator, sets: int, split: str) -> tuple[Scenes, np.ndarray]:
    first, pool = draw(rng, sets, split), draw(rng, sets * _LIKENED, split)
    kinds, pool_kinds = first.kinds, pool.kinds.reshape(sets, _LIKENED, -1)
    common = (pool_kinds[..., None] == kinds[:, None, None]) & (kinds > 0)[:, None, None]
    likest = common.any(3).sum(2).argmax(1)
    second = pool[np.arange(sets) * _LIKENED + likest]
    scenes = Scenes.concatenate((first, second))[np.arange(2 * sets).reshape(2, sets).T.ravel().repeat(2)]
    hidden = np.where(scenes.shape[::2] > 0, rng.random((2 * sets, 9)), 2).argsort(1)[:, :2].ravel()
    return _put(scenes, hidden, (0, 0, 0)), hidden


def _put(scenes: Scenes, cell: np.ndarray, thing: tuple[int, int, int]) -> Scenes:
    """The scenes with `thing` (size, colour, shape) at a cell of each."""
    arrays = {"size": scenes.size.copy(), "colour": scenes.colour.copy(), "shape": scenes.shape.copy()}
    for array, value in zip(arrays.values(), thing, strict=True):
        array[np.arange(len(cell)), cell] = value
    return replace(scenes, **arrays)


def judge(visible: Scenes, card: np.ndarray, clauses: np.ndarray) -> np.ndarray:
    """(B,) index into LABELS, by trying all that may lie under the card."""
    certain = hold(visible, clauses)  # a caption denies nothing: no object under the card makes a true one false
    possible = certain.copy()
    for thing in _OBJECTS:
        open_ = np.flatnonzero(~possible)
        possible[open_] = hold(_put(visible[open_], card[open_], thing), clauses[open_])
    return np.where(certain, 0, np.where(possible, 1, 2))


def _hypothesise(rng: np.random.Generator, visible: Scenes, card: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A caption (B, 3, 8) of what is visible in each picture, and whether it is neutral and contradicted as it must."""
    row = np.arange(len(visible))
    clauses, good = np.zeros((len(visible), MAX_CLAUSES, 8), int), np.zeros(len(visible), bool)
    for _ in range(_TRIES):
        todo = np.flatnonzero(~good)
        clauses[todo] = draw_captions(rng, visible[todo], _MAX_WORDS)
        neutral = todo[~hold(visible[row ^ 1][todo], clauses[todo])]  # the same scene: so it may well be true
        opposite = neutral ^ 2
        good[neutral] = judge(visible[opposite], card[opposite], clauses[neutral]) == LABELS.index("contradiction")
    return clauses, good
