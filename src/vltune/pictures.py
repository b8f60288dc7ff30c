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
from vltune.images import UnreadableImageError, opened

ABOUT = "vltune"  # the field of a PNG file
GAP, LINE = 2, 12  # pixels between pictures, and of a line of text


def as_bytes(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> the same in uint8, on the CPU."""
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
    """Pictures in rows, what each shows above it.  least: pixels of a picture's side, to which small ones are enlarged."""
    height, width = next(iter(rows.values()))[0].shape[-2:]
    times = max(1, -(-least // height))
    high, wide, most = height * times + LINE + GAP, width * times + GAP, max(map(len, rows.values()))
    page = Image.new("RGB", (wide * most + GAP, high * len(rows) + GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(LINE - 2)
    for number, (text, pictures) in enumerate(rows.items()):
        top = GAP + number * high
        draw.text((GAP, top - 1), text, fill="black", font=font)
        for column, picture in enumerate(pictures):
            shown = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            page.paste(shown.resize((width * times, height * times), Image.NEAREST), (GAP + column * wide, top + LINE))
    with replacing(file) as temporary:
        page.save(temporary, format="PNG")
