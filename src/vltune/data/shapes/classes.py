"""Writes the embedded world as an image classification data set in CoOp's raw layout."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vltune.data.shapes.objects import NEAR, TEXTURES, enlarge, faded, lone, textured
from vltune.data.shapes.render import render, write_image
from vltune.data.shapes.scenes import COLOURS, POSITIONS, SHAPES

OBJECTS: Mapping[str, int] = {"train": 1200, "val": 300, "test": 900}
PLACES: Mapping[str, int] = {"train": 2160, "val": 540, "test": 1080}
TEXTURED: Mapping[str, int] = {"train": 800, "val": 200, "test": 600}
HALVES = ("recombined", "words")
SPLIT_FILE = "split_zhou_Shapes.json"
_CHUNK = 1000  # pictures drawn at once: bounds memory


@dataclass(frozen=True)
class World:
    """Classes of two words each.  named: what a class is called.  draw: pictures (B, 3, 64, 64) uint8 from the numbers of
    their words, on bright backgrounds or dark ones."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    named: str
    draw: Callable[[np.random.Generator, np.ndarray, np.ndarray, bool], np.ndarray]

    def pairs(self, halves: str) -> np.ndarray:
        """(C, 2) the words of each class by number, in the order of labels: the first half are the base classes.

        recombined: all pairs, of which the base has every second one.  words: every second first word with the first half
        of the second ones, then the other first words with the other second ones (of an odd number without the last)."""
        pairs = np.array([*np.ndindex(len(self.first), len(self.second))])
        if halves == "words":
            half = len(self.second) // 2
            pairs = pairs[pairs[:, 1] < 2 * half]
            base = pairs[:, 0] % 2 == 0
            return np.concatenate([pairs[base & (pairs[:, 1] < half)], pairs[~base & (pairs[:, 1] >= half)]])
        of_base = pairs.sum(1) % 2 == 0
        return np.concatenate([pairs[of_base], pairs[~of_base]])

    def name(self, first: int, second: int) -> str:
        return self.named.format(self.first[first], self.second[second])


def _objects(rng: np.random.Generator, colour: np.ndarray, shape: np.ndarray, bright: bool) -> np.ndarray:
    drawn = lone(rng, len(shape), shape=shape + 1, colour=colour + 1, bright=bright)
    return enlarge(rng, drawn, render(drawn), rng.integers(*NEAR, len(shape)))


def _places(rng: np.random.Generator, colour: np.ndarray, cell: np.ndarray, bright: bool) -> np.ndarray:
    return render(lone(rng, len(cell), colour=colour + 1, cell=cell, bright=bright))


def _textures(rng: np.random.Generator, texture: np.ndarray, shape: np.ndarray, bright: bool) -> np.ndarray:
    drawn = lone(rng, len(shape), shape=shape + 1, bright=bright)
    return enlarge(rng, drawn, textured(drawn, render(drawn), texture), rng.integers(*NEAR, len(shape)))


WORLDS = {
    "objects": World(COLOURS, SHAPES, "{} {}", _objects),
    "places": World(COLOURS, POSITIONS, "{} object at the {}", _places),
    "textures": World(TEXTURES, SHAPES, "{} {}", _textures),
}


def write_objects(
    out: Path, seed: int = 0, images: Mapping[str, int] = OBJECTS, shift: int = 1, halves: str = "recombined"
) -> None:
    """30 classes, colour and shape of an enlarged object: see `_write`."""
    _write("objects", out, seed, images, shift, halves)


def write_places(
    out: Path, seed: int = 0, images: Mapping[str, int] = PLACES, shift: int = 1, halves: str = "recombined"
) -> None:
    """54 classes, colour and place of a small object: see `_write`."""
    _write("places", out, seed, images, shift, halves)


def write_textures(
    out: Path, seed: int = 0, images: Mapping[str, int] = TEXTURED, shift: int = 1, halves: str = "recombined"
) -> None:
    """20 classes, texture and shape of an enlarged object; pretraining shows and names no texture: see `_write`."""
    _write("textures", out, seed, images, shift, halves)


def _write(world: str, out: Path, seed: int, images: Mapping[str, int], shift: int, halves: str) -> None:
    """Write `images/CLASS/*.jpg` and `split_zhou_Shapes.json` to the folder `out`; the same arguments give the same bytes.

    images: how many of each split; classes have as many each, or one fewer.  shift: 1 has brighter backgrounds than
    pretraining, paler colours and noise, in every split.  halves: where the first half of the classes is the base, the
    others are `recombined` of the words of the base, or have `words` that it lacks: 12, 24 or 8 classes are left."""
    known = WORLDS[world]
    pairs = known.pairs(halves)
    names = [known.name(*pair) for pair in pairs]
    listed: dict[str, list[list]] = {}
    (out / "images").mkdir(parents=True)
    for number, (split, count) in enumerate(images.items()):
        rng, labels, listed[split] = np.random.default_rng((seed, number)), np.arange(count) % len(pairs), []
        for start in range(0, count, _CHUNK):
            of = labels[start : start + _CHUNK]
            pixels = known.draw(rng, *pairs[of].T, bool(shift))
            for row, (label, picture) in enumerate(
                zip(of.tolist(), faded(rng, pixels) if shift else pixels, strict=True)
            ):
                file = f"{names[label].replace(' ', '_')}/{split}_{start + row:05d}.jpg"
                (out / "images" / file).parent.mkdir(exist_ok=True)
                write_image(out / "images" / file, picture)
                listed[split].append([file, label, names[label]])
    (out / SPLIT_FILE).write_text(json.dumps(listed), encoding="utf-8")
