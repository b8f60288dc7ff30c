"""Images are opened in one place: what is none is told for what it is, and nothing is started or printed."""

import gzip
import struct
import subprocess
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from vltune.data.transforms import MinMaxResize, SquareResize
from vltune.images import FORMATS, UnreadableImageError, opened


def noise(width=40, height=30):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def stored(image, form, **options):
    held = BytesIO()
    image.save(held, form, **options)
    return held.getvalue()


def pixels(content):
    with opened(content) as image:
        return np.array(image.convert("RGB"))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height):
    """Of zeros, without its pixels in memory."""
    row = zlib.compressobj()
    data = b"".join(row.compress(bytes(width + 1)) for _ in range(height)) + row.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def claimed(form, width, height):
    """The header of a large image before the pixels of a small one."""
    content = bytearray(stored(noise(), form))
    if form == "PNG":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.fixture(autouse=True)
def without_ghostscript(monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript would run"))


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read_as_pillow_reads_it(form):
    content = stored(noise(), form)
    assert np.array_equal(pixels(content), Image.open(BytesIO(content)).convert("RGB"))


BAD = {
    "empty": (b"", "an empty file"),
    "page": (b"<!DOCTYPE html><html>404</html>", "a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n", "a Git LFS pointer"),
    "gzip": (gzip.compress(stored(noise(), "JPEG")), "a gzip archive"),
    "PostScript": (stored(noise(), "EPS"), "a PostScript file"),
    "PDF": (b"%PDF-1.7\n", "a PDF document"),
    "text": (b"not found\n", "a text that begins with not found"),
    "icon": (stored(noise(), "ICO"), "a binary file that begins with 00 00 01 00"),
    "zeros": (bytes(3000), "a file of zeros"),
    "head of a PNG": (stored(noise(), "PNG")[:12], "PNG image"),
    "head of a JPEG": (stored(noise(), "JPEG")[:9], "JPEG image"),
    "bomb, PNG": (claimed("PNG", 20_000, 20_000), "decompression bomb"),
    "bomb, JPEG": (claimed("JPEG", 65_000, 65_000), "decompression bomb"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("read", [pixels, MinMaxResize(decode="exact").read, MinMaxResize(decode="fast").read])
def test_what_is_no_image_is_told_for_what_it_is(content, message, read):
    with pytest.raises(UnreadableImageError) as error:
        read(content)
    assert message in str(error.value)
    assert str(error.value).isprintable()
    assert "0x" not in str(error.value)  # an address in memory


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("read", [pixels, MinMaxResize(decode="exact").read, MinMaxResize(decode="fast").read])
def test_whatever_is_done_to_an_image_it_is_read_or_refused(form, read):
    rng, whole = np.random.default_rng(FORMATS.index(form)), stored(noise(), form)
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, min(len(whole), rng.choice([60, 10_000])), rng.integers(1, 6)):
            content[place] = rng.integers(0, 256)
        try:
            read(bytes(content[: rng.integers(8, len(whole))] if rng.random() < 0.3 else content))
        except UnreadableImageError as error:
            assert str(error).isprintable()


WARNED_OF = {
    "large": png(10_000, 10_000),
    "transparency in bytes": stored(noise().quantize(16), "PNG", transparency=bytes(range(16))),
    "broken EXIF": stored(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "TIFF without its end": stored(noise(), "TIFF")[:-8],
}
READ = """
import sys
from pathlib import Path
from vltune.images import UnreadableImageError, opened
for name in sys.argv[1:]:
    try:
        with opened(Path(name).read_bytes()) as image:
            image.getexif()
            image.convert("RGB")
    except UnreadableImageError:
        pass
"""


def test_what_pillow_warns_of_is_not_printed(tmp_path):
    for name, content in WARNED_OF.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run([sys.executable, "-c", READ, *WARNED_OF], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("way", ["exact", "fast"])
def test_orientation_is_ignored_by_both_decoders(orientation, way):
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = SquareResize(30, decode=way).read
    assert read(stored(noise(), "JPEG", exif=exif)).equal(read(stored(noise(), "JPEG")))
