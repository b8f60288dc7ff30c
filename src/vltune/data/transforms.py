"""From a stored image to uint8 pixels of the size that a backbone takes; `Collate` normalises and pads them."""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import PIL
import pyarrow as pa
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image

from vltune.data.randaugment import Policy, policy
from vltune.errors import UserError
from vltune.images import MOST_PIXELS, UnreadableImageError, opened

_AREA, _LOG_RATIO = (0.08, 1.0), math.log(4 / 3)  # of what crop_flip cuts out
_JPEG = b"\xff\xd8\xff"
_COLOURS = ("YCbCr", "RGB", "Gray")  # of the JPEGs that libjpeg-turbo turns into RGB as Pillow does


class Transform(ABC):
    """What the ways of resizing share: augmentation before it, or in its place, and pixels as a tensor after it.

    mean, std: per channel, of pixel values in [0, 1], handed on to `Collate`.
    randaugment: a `randaugment.policy` such as "released-m9-n2", applied before resizing when a seed is given; None: never.
    decode: "exact", Pillow's decoder and bicubic, as released; or "fast" for JPEG images, all others stay exact:
    libjpeg-turbo, which decodes at 1/8 to 4/8 of the size where that is still no less than asked for,
    and torch's antialiased bicubic of uint8.  RandAugment then sees the smaller image.  docs/data.md: how much differs.
    augment: "crop_flip", after RandAugment and in the place of resizing when a seed is given: a rectangle of 8 to 100 % of
    the image, 3:4 to 4:3, becomes the whole (bicubic), mirrored half of the time; always exact.  None: never.

    Called with an image and a seed or None; returns uint8 (3, h, w).  The same seed gives the same pixels, and the
    global random states are left as they were.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        randaugment: str | None,
        decode: Literal["exact", "fast"],
        augment: Literal["crop_flip"] | None,
    ):
        if augment not in (None, "crop_flip"):
            raise UserError(f"dataset.augment={augment!r}: use crop_flip or null")
        if decode not in ("exact", "fast"):
            raise UserError(f"dataset.decode={decode!r}: use exact or fast")
        self.mean, self.std = tuple(mean), tuple(std)
        self.randaugment, self.decode, self.augment = randaugment, decode, augment

    @abstractmethod
    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of what an image of this size becomes."""

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after resizing, of which the middle is kept."""
        return self.size(width, height)

    @property
    def augments(self) -> bool:
        """Whether a seed decides the pixels."""
        return self.randaugment is not None or self.augment is not None

    @property
    def decoder(self) -> str:
        """By what versions pixels are decided."""
        versions = [f"Pillow {PIL.__version__}"]
        if self.decode == "fast":
            versions += [f"simplejpeg {simplejpeg.__version__}", f"torch {torch.__version__}"]
        return ", ".join(versions)

    def read(self, content: pa.Buffer | bytes, seed: int | None = None) -> torch.Tensor:
        """The pixels of a stored image.  UnreadableImageError where it cannot be decoded."""
        cropped = seed is not None and self.augment is not None
        if self.decode == "fast" and not cropped and (pixels := self._read_jpeg(content, seed)) is not None:
            return pixels
        with opened(content) as image:
            image = image.convert("RGB")
        return self(image, seed)

    def __call__(self, image: Image.Image, seed: int | None = None) -> torch.Tensor:
        scaled, size = self.scaled(*image.size), self.size(*image.size)
        if math.prod(scaled) > MOST_PIXELS:
            was, becomes = (f"{width:,} x {height:,} pixels" for width, height in (image.size, scaled))
            raise UnreadableImageError(f"of {was}, which would be {becomes} before its middle is cut out")
        image = self._augmented(image, seed)
        if seed is not None and self.augment is not None:
            own = seed if self.randaugment is None else f"crop {seed}"  # else both would draw the same numbers
            return torch.from_numpy(np.array(_crop_flip(image, size, own))).permute(2, 0, 1).contiguous()
        if image.size != scaled:
            image = image.resize(scaled, Image.Resampling.BICUBIC)
        return _middle(torch.from_numpy(np.array(image)).permute(2, 0, 1), size)

    def _read_jpeg(self, content: pa.Buffer | bytes, seed: int | None) -> torch.Tensor | None:
        """`read`, fast; None for all but a whole JPEG in colours or grey."""
        data = np.frombuffer(content, np.uint8)
        if data[: len(_JPEG)].tobytes() != _JPEG:
            return None
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours not in _COLOURS or height * width > MOST_PIXELS:
                return None
            scaled_width, scaled_height = self.scaled(width, height)
            if scaled_width * scaled_height > MOST_PIXELS:
                return None
            # Sizes between a half and the whole take longer to decode than the whole.
            pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=scaled_height, min_width=scaled_width, min_factor=2)
        except ValueError:
            return None
        if seed is not None and self.randaugment is not None:
            pixels = np.array(self._augmented(Image.fromarray(pixels), seed))
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        if image.shape[1:] != (scaled_height, scaled_width):
            shape = scaled_height, scaled_width
            image = F.interpolate(image[None], size=shape, mode="bicubic", antialias=True)[0]
        return _middle(image, self.size(width, height))

    def _augmented(self, image: Image.Image, seed: int | None) -> Image.Image:
        return image if seed is None or self.randaugment is None else self._policy(image, seed)

    @cached_property
    def _policy(self) -> Policy:
        return policy(self.randaugment, self.mean)


class MinMaxResize(Transform):
    """ViLT's resizing (`vilt/transforms/utils.py`): the ratio is kept, nothing is cropped.

    The shorter side becomes `shorter` unless the longer one would pass `longer`, which then decides; both sides are
    rounded to pixels and down to multiples of `multiple` (at least one: the original fails on very long images).
    `longer` is 1333 / 800 of `shorter`, cut to whole pixels, in the released code: "under 640" in the paper.
    mean, std, randaugment, decode, augment: `Transform`'s.
    """

    def __init__(
        self,
        shorter: int = 384,
        longer: int = 639,
        multiple: int = 32,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        randaugment: str | None = None,
        decode: Literal["exact", "fast"] = "exact",
        augment: Literal["crop_flip"] | None = None,
    ):
        super().__init__(mean, std, randaugment, decode, augment)
        self.shorter, self.longer, self.multiple = shorter, longer, multiple

    def size(self, width: int, height: int) -> tuple[int, int]:
        scale = self.shorter / min(width, height)
        sides = [self.shorter if side == min(width, height) else scale * side for side in (width, height)]
        if max(sides) > self.longer:
            shrink = self.longer / max(sides)
            sides = [side * shrink for side in sides]
        width, height = (max(int(side + 0.5) // self.multiple, 1) * self.multiple for side in sides)
        return width, height


class SquareResize(Transform):
    """METER's `clip_transform` (`meter/transforms/transform.py`): every image becomes a square of `size` pixels.

    As released: RandAugment first, then the shorter side to `size` (bicubic, the ratio kept), then the middle `size` of
    the longer side.  crop=False: nothing is cut off, both sides to `size`, the ratio not kept.
    mean, std (CLIP's by default), randaugment, decode, augment: `Transform`'s.
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
        randaugment: str | None = None,
        crop: bool = True,
        decode: Literal["exact", "fast"] = "exact",
        augment: Literal["crop_flip"] | None = None,
    ):
        super().__init__(mean, std, randaugment, decode, augment)
        self.side, self.crop = size, crop

    def size(self, width: int, height: int) -> tuple[int, int]:
        return self.side, self.side

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        if not self.crop:
            return self.side, self.side
        shorter = min(width, height)
        return int(self.side * width / shorter), int(self.side * height / shorter)


def _crop_flip(image: Image.Image, size: tuple[int, int], seed: int | str) -> Image.Image:
    """A rectangle of the image as an image of `size`, mirrored or not, as the seed decides."""
    draw = random.Random(seed).random
    image = image.crop(_rectangle(*image.size, draw)).resize(size, Image.Resampling.BICUBIC)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw() < 0.5 else image


def _rectangle(width: int, height: int, draw: Callable[[], float]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom).  draw: gives numbers from 0 to 1.  Where ten draws do not fit into a long image, the
    middle of it, as long as the ratio allows."""
    for _ in range(10):
        area = width * height * _between(*_AREA, draw)
        ratio = math.exp(_between(-_LOG_RATIO, _LOG_RATIO, draw))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(draw() * (width - across + 1)), int(draw() * (height - down + 1))
            return left, top, left + across, top + down
    longest = math.exp(_LOG_RATIO)
    across, down = min(width, max(1, round(height * longest))), min(height, max(1, round(width * longest)))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _between(low: float, high: float, draw: Callable[[], float]) -> float:
    return low + (high - low) * draw()


def _middle(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(3, H, W) -> (3, h, w), the middle.  size: (w, h)."""
    width, height = size
    left, top = round((image.shape[2] - width) / 2), round((image.shape[1] - height) / 2)
    return image[:, top : top + height, left : left + width].contiguous()
