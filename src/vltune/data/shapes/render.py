"""Pictures of scenes: sprites drawn once, gathered and coloured in batches."""

from collections.abc import Iterator
from functools import cache
from io import BytesIO
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vltune.data.shapes.scenes import CELLS, JITTERS, SHADES, SHAPES, SIZES, Scenes

SIDE = 64
_CELL = 21  # pixels; three cells leave one pixel over at the right and the bottom
_DIAMETERS = (10, 17)  # pixels, small and large; jitter moves the large one as far as the cell's edge
_FINE = 8  # sprites are drawn this much larger and averaged down
_CHUNK = 1000  # pictures drawn at once: bounds memory
_OPAQUE = 128  # alpha in 1/128, so that alpha times a colour difference fits int16
RGB = np.array(
    [[0, 0, 0], [215, 50, 50], [45, 170, 60], [60, 95, 225], [225, 205, 50], [165, 65, 200], [60, 205, 215]], np.int16
)


def outline(shape: str) -> list[tuple[float, float]]:
    """The corners of a shape that just fits the unit circle, x to the right and y down."""

    def around(corners: int, *radii: float) -> list[tuple[float, float]]:
        angles = [2 * pi * k / corners - pi / 2 for k in range(corners)]
        return [(radii[k % len(radii)] * cos(a), radii[k % len(radii)] * sin(a)) for k, a in enumerate(angles)]

    if shape == "cross":
        arm = 0.34
        quarter = [(arm, -0.98), (arm, -arm), (0.98, -arm)]
        return [(x * c - y * s, x * s + y * c) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1)) for x, y in quarter]
    if shape == "square":
        return [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)]
    return {"circle": around(64, 0.95), "triangle": around(3, 1), "star": around(10, 1, 0.42)}[shape]


def covered(shape: str, diameter: int, cell: int) -> np.ndarray:
    """(cell, cell): of each pixel the share that a shape of this diameter covers in the middle of its cell."""
    canvas = Image.new("L", (cell * _FINE, cell * _FINE))
    corners = [tuple(_FINE * (cell + diameter * v) / 2 for v in corner) for corner in outline(shape)]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return np.asarray(canvas).reshape(cell, _FINE, cell, _FINE).mean((1, 3)) / 255


@cache
def sprites() -> np.ndarray:
    """Alpha (1 + 5 * 2 * 25, 21, 21) int16 in 0..128, by `sprite_index`; the first is empty."""
    found = [np.zeros((_CELL, _CELL), np.int16)]
    for shape in SHAPES:
        for diameter in _DIAMETERS:
            alpha = (covered(shape, diameter, _CELL) * _OPAQUE).round().astype(np.int16)
            found += [np.roll(alpha, (k // 5 - 2, k % 5 - 2), (0, 1)) for k in range(JITTERS)]
    return np.stack(found)


def sprite_index(scenes: Scenes) -> np.ndarray:
    """(B, 9) int64: each cell's row in `sprites()`."""
    index = 1 + ((scenes.shape - 1) * len(SIZES) + scenes.size - 1) * JITTERS + scenes.jitter
    return np.where(scenes.shape > 0, index, 0)


def render(scenes: Scenes) -> np.ndarray:
    """RGB pixels (B, 3, 64, 64) uint8."""
    count = len(scenes)
    alpha = sprites()[sprite_index(scenes)].reshape(count, 1, 3, 3, _CELL, _CELL).transpose(0, 1, 2, 4, 3, 5)
    colour = np.clip(RGB[scenes.colour] + (scenes.shade - SHADES // 2)[:, :, None].astype(np.int16), 0, 255)
    tint = scenes.tint.astype(np.int16)
    over = (colour - tint[:, None]).reshape(count, 3, 3, 3).transpose(0, 3, 1, 2)[:, :, :, None, :, None]
    grid = (alpha * over >> 7) + tint[:, :, None, None, None, None]
    pixels = np.empty((count, 3, SIDE, SIDE), np.uint8)
    pixels[:] = tint[:, :, None, None]
    pixels[:, :, : 3 * _CELL, : 3 * _CELL] = grid.reshape(count, 3, 3 * _CELL, 3 * _CELL)
    return pixels


def pictures(scenes: Scenes) -> Iterator[np.ndarray]:
    """RGB pixels (3, 64, 64) uint8 of one scene after the other."""
    for start in range(0, len(scenes), _CHUNK):
        yield from render(scenes[start : start + _CHUNK])


def cell_pixels(cell: int) -> tuple[slice, slice, slice]:
    """Which pixels of an image (3, 64, 64) a cell has."""
    top, left = cell // 3 * _CELL, cell % 3 * _CELL
    return np.s_[:, top : top + _CELL, left : left + _CELL]


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Store RGB pixels (3, h, w) uint8 as JPEG or PNG, as the path ends."""
    with BytesIO() as buffer:
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        image.save(buffer, {".jpg": "JPEG", ".png": "PNG"}[path.suffix], quality=95, compress_level=1)
        path.write_bytes(buffer.getvalue())


@cache
def coverage(patch_size: int) -> np.ndarray:
    """(sprites, 9, patches) int64: how many pixels of each patch a sprite in each cell covers at least half."""
    opaque = sprites() >= _OPAQUE // 2
    patches = SIDE // patch_size
    covered = []
    for cell in range(CELLS):
        canvas = np.zeros((len(opaque), SIDE, SIDE), bool)
        canvas[cell_pixels(cell)] = opaque
        covered.append(canvas.reshape(-1, patches, patch_size, patches, patch_size).sum((2, 4)).reshape(-1, patches**2))
    return np.stack(covered, 1)
