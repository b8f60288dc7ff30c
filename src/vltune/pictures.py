"""Pictures that a model paints, as files: PNG, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from vltune.atomic import replacing
from vltune.errors import UserError
from vltune.images import UnreadableImageError, opened

ABOUT = "vltune"  # the field of a PNG file
GAP, LINE = 2, 12  # pixels between pictures, and of a line of text
MOST = 256  # pixels of a picture's longer side on a sheet


def as_bytes(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> the same in uint8, on the CPU.  UserError where they are not of numbers."""
    if not pictures.isfinite().all():
        raise UserError(
            "a picture is not of numbers: the training diverged, lower engine.lr; or try engine.precision=32-true"
        )
    return ((pictures.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def write_picture(file: Path, picture: Tensor, of: str = "") -> None:
    """picture: (3, H, W) uint8.  of: what it follows from, kept in the file (`is_of`)."""
    about = PngInfo()
    about.add_text(ABOUT, of)
    with replacing(file) as temporary:
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(temporary, format="PNG", pnginfo=about)


def is_of(file: Path, of: str) -> bool:
    """Whether a file is there, and is a picture that follows from this."""
    if not file.is_file():
        return False
    try:
        with opened(file.read_bytes()) as image:
            image.load()
            return image.info.get(ABOUT) == of
    except UnreadableImageError:
        return False


def read_pictures(files: Sequence[Path]) -> Tensor:
    """(N, 3, H, W) uint8, of one size; (0, 3, 0, 0) of none."""
    found = []
    for file in files:
        with opened(file.read_bytes()) as image:
            found.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1))
    return torch.stack(found) if found else torch.zeros(0, 3, 0, 0, dtype=torch.uint8)


def sheet(file: Path, rows: Mapping[str, Sequence[Tensor]], least: int = 96) -> None:
    """Pictures in rows, what each shows above it; a row may have none.

    rows: (3, H, W) uint8 of any sizes.  least: small pictures are enlarged, whole times, to a longer side of so many pixels
    or more, those above MOST made smaller."""
    shown = {text: [_sized(picture, least) for picture in pictures] for text, pictures in rows.items()}
    sizes = [image.size for images in shown.values() for image in images] or [(0, 0)]
    wide, high = (GAP + max(sides) for sides in zip(*sizes, strict=True))
    font = ImageFont.load_default(LINE - 2)
    widths = [wide * max(map(len, shown.values()), default=0), *(int(font.getlength(text)) + GAP for text in shown)]
    page = Image.new("RGB", (GAP + max(widths), GAP + (LINE + high) * len(shown)), "white")
    draw = ImageDraw.Draw(page)
    for number, (text, images) in enumerate(shown.items()):
        top = GAP + number * (LINE + high)
        draw.text((GAP, top - 1), text, fill="black", font=font)
        for column, image in enumerate(images):
            page.paste(image, (GAP + column * wide, top + LINE))
    with replacing(file) as temporary:
        page.save(temporary, format="PNG")


def _sized(picture: Tensor, least: int) -> Image.Image:
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    if (longer := max(image.size)) > MOST:
        return image.resize([max(1, round(side * MOST / longer)) for side in image.size], Image.Resampling.LANCZOS)
    times = -(-least // longer)
    return image.resize([side * times for side in image.size], Image.Resampling.NEAREST)
