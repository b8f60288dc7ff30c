"""From a PIL image to uint8 pixels of the size that a backbone takes; `Collate` normalises and pads them."""

import random
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from vltune.errors import UserError

# ViLT leaves two operations out: inversion of colours, which questions ask about, and cutout, which timm has not.
_OPERATIONS = [
    *("AutoContrast", "Equalize", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast", "Brightness"),
    *("Sharpness", "Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
]


class Transform:
    """What the ways of resizing share: RandAugment before it, and pixels as a tensor after it.

    mean, std: per channel, of pixel values in [0, 1], handed on to `Collate`.
    randaugment: a timm configuration such as "rand-m9-n2", applied before resizing when a seed is given; None: never.

    Called with an image and a seed or None; returns uint8 (3, h, w).  The same seed gives the same pixels, and the
    global random states are left as they were.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], randaugment: str | None):
        self.mean, self.std = tuple(mean), tuple(std)
        self.randaugment = randaugment

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels after resizing."""
        raise NotImplementedError

    def resize(self, image: Image.Image) -> Image.Image:
        raise NotImplementedError

    def __call__(self, image: Image.Image, seed: int | None = None) -> torch.Tensor:
        if seed is not None and self.randaugment is not None:
            image = self._augment(image, seed)
        return torch.from_numpy(np.array(self.resize(image))).permute(2, 0, 1).contiguous()

    def _augment(self, image: Image.Image, seed: int) -> Image.Image:
        policy = self._policy
        states = random.getstate(), np.random.get_state()
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            return policy(image)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])

    @cached_property
    def _policy(self):
        from timm.data.auto_augment import rand_augment_transform

        fill = tuple(round(255 * channel) for channel in self.mean)
        try:
            return rand_augment_transform(self.randaugment, {"img_mean": fill}, _OPERATIONS)
        except (AssertionError, ValueError):
            raise UserError(f"randaugment={self.randaugment!r}: not a timm configuration such as rand-m9-n2") from None


class MinMaxResize(Transform):
    """ViLT's resizing (`vilt/transforms/utils.py`): the ratio is kept, nothing is cropped.

    The shorter side becomes `shorter` unless the longer one would pass `longer`, which then decides; both sides are
    rounded to pixels and down to multiples of `multiple` (at least one: the original fails on very long images).
    mean, std, randaugment: `Transform`'s.
    """

    def __init__(
        self,
        shorter: int = 384,
        longer: int = 640,
        multiple: int = 32,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        randaugment: str | None = None,
    ):
        super().__init__(mean, std, randaugment)
        self.shorter, self.longer, self.multiple = shorter, longer, multiple

    def size(self, width: int, height: int) -> tuple[int, int]:
        scale = self.shorter / min(width, height)
        sides = [self.shorter if side == min(width, height) else scale * side for side in (width, height)]
        if max(sides) > self.longer:
            shrink = self.longer / max(sides)
            sides = [side * shrink for side in sides]
        width, height = (max(int(side + 0.5) // self.multiple, 1) * self.multiple for side in sides)
        return width, height

    def resize(self, image: Image.Image) -> Image.Image:
        return _bicubic(image, *self.size(*image.size))


class SquareResize(Transform):
    """METER's `clip_transform` (`meter/transforms/transform.py`): every image becomes a square of `size` pixels.

    As released: RandAugment first, then the shorter side to `size` (bicubic, the ratio kept), then the middle `size` of
    the longer side.  crop=False: nothing is cut off, both sides to `size`, the ratio not kept.
    mean, std (CLIP's by default), randaugment: `Transform`'s.
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
        randaugment: str | None = None,
        crop: bool = True,
    ):
        super().__init__(mean, std, randaugment)
        self.side, self.crop = size, crop

    def size(self, width: int, height: int) -> tuple[int, int]:
        return self.side, self.side

    def resize(self, image: Image.Image) -> Image.Image:
        if not self.crop:
            return _bicubic(image, self.side, self.side)
        shorter = min(image.size)
        width, height = (int(self.side * length / shorter) for length in image.size)
        left, top = (round((length - self.side) / 2) for length in (width, height))
        return _bicubic(image, width, height).crop((left, top, left + self.side, top + self.side))


def _bicubic(image: Image.Image, width: int, height: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)
