"""The one way in which images are opened: of the formats that data sets are made of, failures in words, no warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from vltune.signatures import HEAD, identify

if TYPE_CHECKING:
    import pyarrow as pa

# Pillow reads 40 more, and starts Ghostscript for one of them.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
MOST_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # of an image; Pillow refuses larger ones

_ORIENTATION = 0x0112  # in EXIF

# They name no image, and are of metadata that nobody reads.  One filter, once: catching them around each image would make
# Python forget which warnings of others it has shown already.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImageError(Exception):
    """Why an image cannot be read, in words such as `a web page, not the file itself`."""


@contextmanager
def opened(content: bytes | pa.Buffer) -> Iterator[Image.Image]:
    """An image of which the header is read.  UnreadableImageError where that, or what is done with it inside, fails."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            yield image
    except MemoryError:
        raise
    except Exception as error:  # on broken bytes, decoders raise about anything
        raise UnreadableImageError(_reason(content, error)) from None


def is_turned(image: Image.Image) -> bool:
    """Whether its metadata say that it is to be seen otherwise than it is stored."""
    try:
        return image.getexif().get(_ORIENTATION) in range(2, 9)
    except Exception:  # broken metadata, which nobody else reads
        return False


def is_seen_through(image: Image.Image) -> bool:
    """Whether some of it is transparent.  image: loaded."""
    return image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255


def _reason(content: bytes | pa.Buffer, error: Exception) -> str:
    name = identify(memoryview(content)[:HEAD].tobytes()).name
    if not name.endswith("image"):
        return name
    if isinstance(error, UnidentifiedImageError):
        return f"{name} with a broken header"
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{name} that cannot be decoded ({said})"
