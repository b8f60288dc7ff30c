"""A small world, written and prepared once."""

import numpy as np
import pytest
from PIL import Image

from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.shapes.vqav2 import write_raw
from vltune.data.tokenizer import Tokenizer
from vltune.data.transforms import MinMaxResize
from vltune.data.vqav2.prepare import prepare

IMAGES = {"train": 60, "val": 20, "test": 30}


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_raw(folder, seed=3, images=IMAGES)
    return folder


@pytest.fixture(scope="session")
def prepared(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(raw, folder, min_answer_count=1, progress=False)
    return folder


@pytest.fixture
def tokenizer():
    return Tokenizer(VOCABULARY, 20)


@pytest.fixture
def transform():
    return MinMaxResize(shorter=64, longer=64, multiple=16)


@pytest.fixture(scope="session")
def paint():
    """Writes noise that follows from a number as an image of a size (width, height)."""

    def write(path, number, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)

    return write
