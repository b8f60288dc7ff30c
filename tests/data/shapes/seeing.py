"""Objects read from the pixels of a stored image, without the scene that it was rendered from."""

import numpy as np
from PIL import Image

from vltune.data.shapes.render import sprites
from vltune.data.shapes.scenes import COLOURS, JITTERS, SHAPES, SIZES

_RGB = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0.8, 0, 1], [0, 1, 1]])
_HUES = _RGB - _RGB.mean(1, keepdims=True)
_HUES /= np.linalg.norm(_HUES, axis=1, keepdims=True)
_STENCILS = sprites()[1:] / np.linalg.norm(sprites()[1:], axis=(1, 2), keepdims=True)


def seen(path):
    """What an image shows, as `reading.things` tells it, and which cells a grey card lies on."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(float)
    things, cards = [], []
    for cell in range(9):
        y, x = divmod(cell, 3)
        square = pixels[21 * y : 21 * y + 21, 21 * x : 21 * x + 21]
        change = np.abs((square - pixels[63, 63]) @ [0.3, 0.6, 0.1])
        if (change[2:-2, 2:-2] > 9).sum() < 12:
            continue
        if square[4:-4, 4:-4].std() < 4:
            cards.append(cell)
            continue
        sprite = np.einsum("sxy,xy->s", _STENCILS, change).argmax()
        shape, size = divmod(sprite // JITTERS, len(SIZES))
        middle = np.median(square[sprites()[1 + sprite] == 128], axis=0)
        colour = (_HUES @ (middle - middle.mean())).argmax()
        things.append({"size": SIZES[size], "color": COLOURS[colour], "shape": SHAPES[shape], "x": x, "y": y})
    return things, cards
