"""Scenes of the embedded world: two to five objects on a 3 x 3 grid, as batches of integer arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SIZES = ("small", "large")
POSITIONS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
RELATIONS = ("left of", "right of", "above", "below")

CELLS = 9
JITTERS = 25  # 5 x 5 shifts of -2 to 2 pixels
SHADES = 49  # brightness shifts of -24 to 24
_COPIED = 0.4  # how often an object takes the scene's favourite shape or colour, so that counts above one occur

_ROW, _COLUMN = np.divmod(np.arange(CELLS), 3)
_SAME_ROW, _SAME_COLUMN = _ROW[:, None] == _ROW, _COLUMN[:, None] == _COLUMN
# (4, 9, 9): does cell i lie [left of, right of, above, below] cell j?  Only along one row or one column.
RELATED = np.stack(
    [
        _SAME_ROW & (_COLUMN[:, None] < _COLUMN),
        _SAME_ROW & (_COLUMN[:, None] > _COLUMN),
        _SAME_COLUMN & (_ROW[:, None] < _ROW),
        _SAME_COLUMN & (_ROW[:, None] > _ROW),
    ]
)

# Every layout belongs to one share of ten, and every split draws from its own shares: none is in two splits.
_SHARES = {"train": range(6), "val": range(6, 8), "test": range(8, 10)}


@dataclass(frozen=True)
class Scenes:
    """B scenes.  shape, colour and size count from 1 and are 0 in an empty cell; `tint` is the background's RGB."""

    shape: np.ndarray  # (B, 9) int64, cells in raster order
    colour: np.ndarray  # (B, 9) int64
    size: np.ndarray  # (B, 9) int64
    jitter: np.ndarray  # (B, 9) int64 below JITTERS
    shade: np.ndarray  # (B, 9) int64 below SHADES
    tint: np.ndarray  # (B, 3) int64

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index) -> "Scenes":
        return Scenes(*(array[index] for array in self._arrays))

    @classmethod
    def concatenate(cls, parts: Sequence["Scenes"]) -> "Scenes":
        return cls(*map(np.concatenate, zip(*(part._arrays for part in parts), strict=True)))

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.shape, self.colour, self.size, self.jitter, self.shade, self.tint

    @property
    def objects(self) -> np.ndarray:
        """(B, 9) int64: which object a cell holds, whatever its jitter and shade; 0 if none, at most 125."""
        return (self.shape * (len(COLOURS) + 1) + self.colour) * (len(SIZES) + 1) + self.size

    @property
    def kinds(self) -> np.ndarray:
        """(B, 9) int64: the same whatever an object's size; 0 if none."""
        return self.objects // (len(SIZES) + 1)

    @property
    def layout(self) -> np.ndarray:
        """(B,) uint64: one number for every arrangement of objects, whatever jitter, shade and tint."""
        return (self.objects.astype(np.uint64) << (7 * np.arange(CELLS, dtype=np.uint64))).sum(1, dtype=np.uint64)


def draw(rng: np.random.Generator, count: int, split: str = "train") -> Scenes:
    """`count` scenes whose layouts belong to `split` (train, val or test), no scene with two equal objects."""
    shares = list(_SHARES[split])
    parts: list[Scenes] = []
    while (missing := count - sum(map(len, parts))) > 0 or not parts:
        scenes = _draw(rng, 16 + missing * 12 // len(shares))
        objects = np.sort(scenes.objects, axis=1)
        repeats = ((objects[:, 1:] == objects[:, :-1]) & (objects[:, 1:] > 0)).any(1)
        parts.append(scenes[np.flatnonzero(np.isin(share_of(scenes.layout), shares) & ~repeats)[:missing]])
    return Scenes.concatenate(parts)


def share_of(layout: np.ndarray) -> np.ndarray:
    """(B,) uint64 -> (B,): into which of ten shares each layout falls."""
    return (layout * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) % np.uint64(10)


def _draw(rng: np.random.Generator, count: int) -> Scenes:
    grid = (count, CELLS)
    occupied = rng.random(grid).argsort(1).argsort(1) < rng.integers(2, 6, (count, 1))

    def attribute(values: int) -> np.ndarray:
        favourite = np.where(rng.random(grid) < _COPIED, rng.integers(1, values + 1, (count, 1)), 0)
        return occupied * np.where(favourite > 0, favourite, rng.integers(1, values + 1, grid))

    return Scenes(
        shape=attribute(len(SHAPES)),
        colour=attribute(len(COLOURS)),
        size=occupied * rng.integers(1, len(SIZES) + 1, grid),
        jitter=rng.integers(0, JITTERS, grid),
        shade=rng.integers(0, SHADES, grid),
        tint=rng.integers(20, 72, (count, 3)),
    )
