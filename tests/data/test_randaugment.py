import random

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vltune.data.randaugment import OPERATIONS, Released, policy
from vltune.errors import UserError

MEAN = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(0).integers(20, 230, (120, 160, 3), dtype=np.uint8))


def moved(image, x, y):
    """The image so many pixels to the left and up, on black."""
    canvas = Image.new("RGB", image.size)
    canvas.paste(image, (-x, -y))
    return canvas


def added(image):
    raised = np.minimum(np.array(image).astype(int) + 33, 255)
    return Image.fromarray(np.where(raised < 128, raised, 255 - raised).astype(np.uint8))


def sheared(image, x, y):
    return image.transform(image.size, Image.Transform.AFFINE, (1, x, 0, y, 1, 0))


# What strength 9 of 30 is, in the words of the released code's ranges; where a sign is drawn, both.
AT_NINE = {
    "AutoContrast": [ImageOps.autocontrast],
    "Equalize": [ImageOps.equalize],
    "Posterize": [lambda image: ImageOps.posterize(image, 1)],
    "Solarize": [lambda image: image.point(lambda value: value if value <= 76 else 255 - value)],
    "SolarizeAdd": [added],
    "Color": [lambda image: ImageEnhance.Color(image).enhance(0.64)],
    "Contrast": [lambda image: ImageEnhance.Contrast(image).enhance(0.64)],
    "Brightness": [lambda image: ImageEnhance.Brightness(image).enhance(0.64)],
    "Sharpness": [lambda image: ImageEnhance.Sharpness(image).enhance(0.64)],
    "Rotate": [lambda image: image.rotate(9), lambda image: image.rotate(-9)],
    "ShearX": [lambda image: sheared(image, 0.09, 0), lambda image: sheared(image, -0.09, 0)],
    "ShearY": [lambda image: sheared(image, 0, 0.09), lambda image: sheared(image, 0, -0.09)],
    "TranslateX": [lambda image: moved(image, 30, 0), lambda image: moved(image, -30, 0)],
    "TranslateY": [lambda image: moved(image, 0, 30), lambda image: moved(image, 0, -30)],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_at_nine_is_what_the_released_code_makes_of_it(name, image, monkeypatch):
    for other in OPERATIONS.keys() - {name}:
        monkeypatch.delitem(OPERATIONS, other)
    augment, wanted = policy("released-m9-n1", MEAN), [make(image).tobytes() for make in AT_NINE[name]]
    got = {augment(image, seed).tobytes() for seed in range(20)}
    assert got == set(wanted)
    assert image.tobytes() not in got


def test_two_of_fourteen_are_drawn_and_always_applied(image):
    augment = policy("released-m9-n2", MEAN)
    assert isinstance(augment, Released)
    results = [augment(image, seed) for seed in range(200)]
    assert all(result.size == image.size and result.mode == "RGB" for result in results)
    assert all(result.tobytes() != image.tobytes() for result in results)
    assert len({result.tobytes() for result in results}) > 80
    assert set(AT_NINE) == set(OPERATIONS)


@pytest.mark.parametrize("name", ["released-m9-n2", "rand-m9-n2"])
def test_the_seed_decides_and_global_states_stay(name, image):
    random.seed(5)
    np.random.seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist()
    first = [policy(name, MEAN)(image, seed).tobytes() for seed in range(8)]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    assert [policy(name, MEAN)(image, seed).tobytes() for seed in range(8)] == first
    assert len(set(first)) > 4


@pytest.mark.parametrize("name", ["released-m31-n2", "released-9-2", "auto-m9", "released-m9-n2-mstd0.5"])
def test_there_is_no_such(name):
    with pytest.raises(UserError, match=f"dataset.randaugment='{name}': write released-mM-nN"):
        policy(name, MEAN)
