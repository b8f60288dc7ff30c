"""Files told by their first bytes."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from vltune.signatures import HEAD, identify, identify_file


def archive(kind):
    held = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(held, "w") as opened:
            opened.writestr("a.json", "{}")
    else:
        with tarfile.open(fileobj=held, mode="w") as opened:
            opened.addfile(tarfile.TarInfo("a.json"))
    return held.getvalue()


def image(format):
    held = io.BytesIO()
    Image.new("RGB", (4, 4)).save(held, format)
    return held.getvalue()


def columnar():
    held = io.BytesIO()
    parquet.write_table(pa.table({"a": [1]}), held)
    return held.getvalue()


def array():
    held = io.BytesIO()
    np.save(held, np.zeros(3))
    return held.getvalue()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "an empty file"),
        (bytes(700), "a file of zeros"),
        (gzip.compress(b"{}"), "a gzip archive"),
        (archive("zip"), "a zip archive"),
        (archive("tar"), "a tar archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "a Git LFS pointer, not the data itself"),
        (b"\n<!DOCTYPE html><html>", "a web page, not the file itself"),
        (b"\xef\xbb\xbf<html>", "a web page, not the file itself"),
        (columnar(), "a Parquet file"),
        (array(), "a NumPy file"),
        *((image(kind), f"a {kind} image") for kind in ("JPEG", "PNG", "GIF", "WebP", "TIFF", "BMP")),
        (image("EPS"), "a PostScript file"),
        ("{}".encode("utf-16"), "a text in UTF-16"),
        (b'\xef\xbb\xbf{"images": []}', 'a text that begins with {"images": []}'),
        ("ä".encode() * HEAD, f"a text that begins with {'ä' * 24}"),
        (b"\x00\x01\x02\x03" * 9, "a binary file that begins with 00 01 02 03 00 01 02 03"),
    ],
)
def test_a_file_is_told_in_words(content, name, tmp_path):
    found = identify(content[:HEAD])
    assert found.name == name
    assert "b'" not in found.name
    (tmp_path / "file").write_bytes(content)
    assert identify_file(tmp_path / "file") == found
