"""Single objects: drawn, enlarged, textured, and under another light than pretraining's."""

import numpy as np

from vltune.data.shapes.render import SIDE, cell_pixels
from vltune.data.shapes.scenes import CELLS, COLOURS, JITTERS, SHADES, SHAPES, SIZES, Scenes

NEAR = (21, 30)  # pixels of the window around an enlarged object, as numpy draws them
TEXTURES = ("plain", "striped", "dotted", "checked")
_DARK, _BRIGHT = (20, 72), (80, 130)  # backgrounds
_GREY, _NOISE = 0.2, 10.0  # of another light: the share of every colour's mean, and the noise's standard deviation
_OFF = 2.0  # pixels at most by which a window misses an object's middle
_GRID = np.arange(SIDE)


def _patterns() -> np.ndarray:
    """(4, 64, 64): what is left of an object's colour, of each texture."""
    row, column = _GRID[:, None], _GRID[None]
    kept = np.stack(
        [
            np.ones((SIDE, SIDE), bool),
            np.broadcast_to(row % 4 < 2, (SIDE, SIDE)),
            (row % 4 >= 2) | (column % 4 >= 2),
            (row // 2 + column // 2) % 2 == 1,
        ]
    )
    return np.where(kept, 1, 0.3).astype(np.float32)


_PATTERNS = _patterns()


def lone(
    rng: np.random.Generator,
    count: int,
    shape: np.ndarray | None = None,
    colour: np.ndarray | None = None,
    cell: np.ndarray | None = None,
    bright: bool = False,
) -> Scenes:
    """Scenes of one object each.  shape, colour: (B,) from 1, cell: (B,); drawn where they are not given."""

    def chosen(given: np.ndarray | None, names: tuple[str, ...]) -> np.ndarray:
        return rng.integers(1, len(names) + 1, count) if given is None else given

    there = np.eye(CELLS, dtype=int)[rng.integers(0, CELLS, count) if cell is None else cell]
    return Scenes(
        shape=there * chosen(shape, SHAPES)[:, None],
        colour=there * chosen(colour, COLOURS)[:, None],
        size=there * chosen(None, SIZES)[:, None],
        jitter=rng.integers(0, JITTERS, there.shape),
        shade=rng.integers(0, SHADES, there.shape),
        tint=rng.integers(*(_BRIGHT if bright else _DARK), (count, 3)),
    )


def enlarge(rng: np.random.Generator, scenes: Scenes, pixels: np.ndarray, side: np.ndarray) -> np.ndarray:
    """(B, 3, 64, 64): a window around each scene's one object, as large as the picture.  side: (B,) of it in pixels."""
    cell = (scenes.shape > 0).argmax(1)
    middles = np.array([[(axis.start + axis.stop) / 2 for axis in cell_pixels(each)[1:]] for each in range(CELLS)])[
        cell
    ]
    first = middles - side[:, None] / 2 + rng.uniform(-_OFF, _OFF, middles.shape)
    first = np.clip(first, 0, SIDE - side[:, None])
    taken = (first[..., None] + (_GRID + 0.5) * side[:, None, None] / SIDE).astype(int).clip(0, SIDE - 1)
    rows, columns = taken[:, 0], taken[:, 1]
    at = np.arange(len(pixels))[:, None, None]
    return pixels.transpose(0, 2, 3, 1)[at, rows[:, :, None], columns[:, None]].transpose(0, 3, 1, 2)


def textured(scenes: Scenes, pixels: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """(B, 3, 64, 64) uint8: the pictures with a texture (B,), an index of TEXTURES, on what is not background."""
    empty = scenes.tint[:, :, None, None].astype(np.float32)
    return (empty + (pixels - empty) * _PATTERNS[texture][:, None]).round().astype(np.uint8)


def faded(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """(B, 3, 64, 64) uint8: a fifth of the colour gone, and noise."""
    grey = pixels.mean(1, keepdims=True, dtype=np.float32)
    noisy = (1 - _GREY) * pixels + _GREY * grey + rng.normal(0, _NOISE, pixels.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)
