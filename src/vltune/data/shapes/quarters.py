"""Small pictures to be painted: one or two objects in the quarters of 32 x 32 pixels, and captions in the world's words.

Two colours and every texture are in no caption: what a subject has that pretraining never shows.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import cache

import numpy as np

from vltune.data.shapes import language
from vltune.data.shapes.language import BARE, COLOUR, KIND, MAX_CLAUSES, PLACE, PLACED, SHAPE, SIZE
from vltune.data.shapes.render import RGB, covered
from vltune.data.shapes.scenes import CELLS, COLOURS, SHADES, SHAPES, SIZES, Scenes, share_of

SIDE, QUARTERS = 32, 4
CORNERS = np.array([0, 2, 6, 8])  # which of POSITIONS the quarters are
PAINTS = (*COLOURS, "orange", "white")
TEXTURES = ("solid", "banded", "striped", "checked", "dotted")
WORDS = 17  # of the longest caption
_CELL, _DIAMETERS, _JITTERS = 16, (9, 14), 9  # pixels; small and large; 3 x 3 shifts of a pixel
_TWO = 0.65  # share of pictures with two objects
_SAID = np.array([0.5, 0.85, 0.75])  # how often a clause says size, colour and place
_RGB = np.concatenate([RGB, [[240, 140, 30], [240, 240, 240]]]).astype(np.float32)
_SHARES = {"train": range(8), "val": range(8, 9), "test": range(9, 10)}  # of ten into which layouts fall


@dataclass(frozen=True)
class Quarters:
    """B pictures.  shape, colour and size count from 1 and are 0 in an empty quarter; texture is an index of TEXTURES, and
    second the colour that it has beside the first, 0 where it is solid; `tint` is the background's RGB."""

    shape: np.ndarray  # (B, 4) int64, in raster order
    colour: np.ndarray  # (B, 4) int64, of PAINTS
    size: np.ndarray  # (B, 4) int64
    texture: np.ndarray  # (B, 4) int64
    second: np.ndarray  # (B, 4) int64, of PAINTS
    jitter: np.ndarray  # (B, 4) int64
    shade: np.ndarray  # (B, 4) int64 below SHADES
    tint: np.ndarray  # (B, 3) int64

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index) -> Quarters:
        return Quarters(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @classmethod
    def concatenate(cls, parts: list[Quarters]) -> Quarters:
        return cls(*map(np.concatenate, zip(*map(astuple, parts), strict=True)))

    @property
    def scenes(self) -> Scenes:
        """What captions are about: the same objects in the corners of a 3 x 3 grid."""

        def grid(values: np.ndarray) -> np.ndarray:
            found = np.zeros((len(self), CELLS), int)
            found[:, CORNERS] = values
            return found

        return Scenes(*map(grid, (self.shape, self.colour, self.size, self.jitter, self.shade)), self.tint)


def draw(
    rng: np.random.Generator, count: int, split: str | None = "train", textured: float = 0.0, paints: int = len(COLOURS)
) -> Quarters:
    """split: whose layouts (train, val or test; no layout is of two); None: any.  textured: the share of objects that are
    not solid.  paints: how many of PAINTS there are."""
    parts: list[Quarters] = []
    while (missing := count - sum(map(len, parts))) > 0 or not parts:
        found = _draw(rng, 16 + missing * (10 // len(_SHARES[split]) + 1 if split else 1), textured, paints)
        if split:
            found = found[np.flatnonzero(np.isin(share_of(found.scenes.layout), [*_SHARES[split]]))]
        parts.append(found[: max(0, missing)])
    return Quarters.concatenate(parts)


def _draw(rng: np.random.Generator, count: int, textured: float, paints: int) -> Quarters:
    grid = (count, QUARTERS)
    occupied = rng.random(grid).argsort(1).argsort(1) < 1 + (rng.random((count, 1)) < _TWO)
    colour = rng.integers(1, paints + 1, grid)
    other = (colour - 1 + rng.integers(1, paints, grid)) % paints + 1
    texture = occupied * (rng.random(grid) < textured) * rng.integers(1, len(TEXTURES), grid)
    return Quarters(
        shape=occupied * rng.integers(1, len(SHAPES) + 1, grid),
        colour=occupied * colour,
        size=occupied * rng.integers(1, len(SIZES) + 1, grid),
        texture=texture,
        second=(texture > 0) * other,
        jitter=rng.integers(0, _JITTERS, grid),
        shade=rng.integers(0, SHADES, grid),
        tint=rng.integers(20, 72, (count, 3)),
    )


@cache
def _sprites() -> np.ndarray:
    """(5, 2, 9, 16, 16) float32 by shape, size and jitter: how much of a pixel is covered."""
    found = np.zeros((len(SHAPES), len(SIZES), _JITTERS, _CELL, _CELL), np.float32)
    for (shape, size, jitter), _ in np.ndenumerate(found[..., 0, 0]):
        alpha = covered(SHAPES[shape], _DIAMETERS[size], _CELL)
        found[shape, size, jitter] = np.roll(alpha, (jitter // 3 - 1, jitter % 3 - 1), (0, 1))
    return found


@cache
def _patterns() -> np.ndarray:
    """(5, 16, 16) float32 in the order of TEXTURES: 1 where the second colour is."""
    row, column = np.mgrid[:_CELL, :_CELL]
    middle = (_CELL - 1) / 2
    found = [
        np.zeros((_CELL, _CELL)),
        row // 3 % 2,
        column // 3 % 2,
        (row // 4 + column // 4) % 2,
        np.hypot(row - middle, column - middle) < 3.2,
    ]
    return np.stack(found).astype(np.float32)


def render(quarters: Quarters) -> np.ndarray:
    """RGB pixels (B, 3, 32, 32) uint8."""
    there = (quarters.shape > 0)[..., None, None, None]
    alpha = there * _sprites()[quarters.shape - 1, quarters.size - 1, quarters.jitter][..., None]
    second = _patterns()[quarters.texture][..., None]
    shade = (quarters.shade - SHADES // 2)[..., None]
    one, two = (np.clip(_RGB[paint] + shade, 0, 255)[:, :, None, None] for paint in (quarters.colour, quarters.second))
    cells = quarters.tint[:, None, None, None] * (1 - alpha) + (one * (1 - second) + two * second) * alpha
    pixels = cells.reshape(-1, 2, 2, _CELL, _CELL, 3).transpose(0, 5, 1, 3, 2, 4).reshape(-1, 3, SIDE, SIDE)
    return pixels.round().astype(np.uint8)


def draw_captions(rng: np.random.Generator, quarters: Quarters, full: bool = False) -> np.ndarray:
    """A true caption for each picture, as clauses (B, 3, 8) of `language`: every object in a clause, "a large red circle at
    the top left", in any order.  full: nothing is left unsaid."""
    occupied = quarters.shape > 0
    about = np.where(occupied, rng.random(occupied.shape), 2).argsort(1)[:, :2]
    there = np.take_along_axis(occupied, about, 1)
    size, colour, place = there & ((rng.random((3, *about.shape)) < _SAID[:, None, None]) | full)
    clauses = np.zeros((len(quarters), MAX_CLAUSES, 8), int)
    said = clauses[:, :2]
    said[..., KIND] = there * np.where(place, PLACED, BARE)
    said[..., PLACE] = place * CORNERS[about]
    said[..., SHAPE] = np.take_along_axis(quarters.shape, about, 1)
    said[..., SIZE] = size * np.take_along_axis(quarters.size, about, 1)
    said[..., COLOUR] = colour * np.take_along_axis(quarters.colour, about, 1)
    return clauses


def captions(rng: np.random.Generator, quarters: Quarters, full: bool = False) -> list[str]:
    return language.to_text(language.to_words(draw_captions(rng, quarters, full)))
