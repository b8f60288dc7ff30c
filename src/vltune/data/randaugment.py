"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719) of training images, by name; a seed draws the same everywhere."""

import random
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vltune.errors import UserError

Policy = Callable[[Image.Image, int], Image.Image]
"""An RGB image and a seed -> an RGB image of the same size; global random states are left as they were."""

_RELEASED = re.compile(r"released-m(\d+)-n(\d+)")
_STRONGEST = 30


def policy(name: str, mean: Sequence[float]) -> Policy:
    """`released-mM-nN`: ViLT's and METER's `RandAugment(N, M)`, M of 30.  All else is timm's, such as "rand-m9-n2": M of
    10, each operation in half of the cases, on a ground of `mean` (per channel, 0 to 1).  UserError where there is none."""
    if written := _RELEASED.fullmatch(name):
        strength, drawn = map(int, written.groups())
        if strength <= _STRONGEST:
            return Released(drawn, strength)
    elif found := _timm(name, mean):
        return found
    raise UserError(
        f"dataset.randaugment={name!r}: write released-mM-nN, N operations of ViLT's and METER's at strength M of "
        f"{_STRONGEST}, or a timm configuration such as rand-m9-n2"
    )


class Released:
    """RandAugment as ViLT and METER were trained with it (`vilt/transforms/randaug.py`, `meter/transforms/randaug.py`).

    Of 14 operations (`OPERATIONS`) as many as `drawn`, with replacement, one after the other; each is applied, `strength`
    / 30 of the way from its least value to its greatest.  What comes in at the edges is black.
    """

    def __init__(self, drawn: int, strength: int):
        self.drawn, self.share = drawn, strength / _STRONGEST

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        draw = random.Random(seed)
        for operation, least, greatest in draw.choices([*OPERATIONS.values()], k=self.drawn):
            image = operation(image, least + self.share * (greatest - least), draw)
        return image


def _affine(image: Image.Image, *row: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, row)


def _solarize_add(image: Image.Image, added: float) -> Image.Image:
    return ImageOps.solarize(image.point(lambda value: min(255, value + int(added))), 128)


def _one_way(operation: Callable[[Image.Image, float], Image.Image]):
    return lambda image, value, draw: operation(image, value)


def _either_way(operation: Callable[[Image.Image, float], Image.Image]):
    return lambda image, value, draw: operation(image, -value if draw.random() > 0.5 else value)


OPERATIONS: Mapping[str, tuple[Callable[[Image.Image, float, random.Random], Image.Image], float, float]] = {
    "AutoContrast": (_one_way(lambda image, _: ImageOps.autocontrast(image)), 0, 1),
    "Equalize": (_one_way(lambda image, _: ImageOps.equalize(image)), 0, 1),
    "Posterize": (_one_way(lambda image, bits: ImageOps.posterize(image, max(1, int(bits)))), 0, 4),
    "Solarize": (_one_way(ImageOps.solarize), 0, 256),
    "SolarizeAdd": (_one_way(_solarize_add), 0, 110),
    "Color": (_one_way(lambda image, factor: ImageEnhance.Color(image).enhance(factor)), 0.1, 1.9),
    "Contrast": (_one_way(lambda image, factor: ImageEnhance.Contrast(image).enhance(factor)), 0.1, 1.9),
    "Brightness": (_one_way(lambda image, factor: ImageEnhance.Brightness(image).enhance(factor)), 0.1, 1.9),
    "Sharpness": (_one_way(lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor)), 0.1, 1.9),
    "Rotate": (_either_way(lambda image, degrees: image.rotate(degrees)), 0, 30),
    "ShearX": (_either_way(lambda image, shear: _affine(image, 1, shear, 0, 0, 1, 0)), 0, 0.3),
    "ShearY": (_either_way(lambda image, shear: _affine(image, 1, 0, 0, shear, 1, 0)), 0, 0.3),
    "TranslateX": (_either_way(lambda image, pixels: _affine(image, 1, 0, pixels, 0, 1, 0)), 0, 100),
    "TranslateY": (_either_way(lambda image, pixels: _affine(image, 1, 0, 0, 0, 1, pixels)), 0, 100),
}
"""The operation, and its least and greatest value.  Without those that ViLT leaves out: inversion of colours and cutout."""

_OF_TIMM = [f"{name}Rel" if name.startswith("Translate") else name for name in OPERATIONS]


def _timm(name: str, mean: Sequence[float]) -> Policy | None:
    from timm.data.auto_augment import rand_augment_transform

    try:
        ground = tuple(round(255 * channel) for channel in mean)
        augment = rand_augment_transform(name, {"img_mean": ground}, _OF_TIMM)
    except (AssertionError, ValueError):
        return None

    def applied(image: Image.Image, seed: int) -> Image.Image:
        states = random.getstate(), np.random.get_state()
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            return augment(image)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])

    return applied
