import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from vltune.data.transforms import MinMaxResize, SquareResize
from vltune.errors import UserError


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 480, (512, 384)),
        (480, 640, (384, 512)),
        (500, 500, (384, 384)),
        (427, 640, (384, 576)),  # 575.55 -> 576
        (1000, 300, (640, 192)),  # the longer side decides: 640 x 192
        (640, 360, (640, 352)),  # 682.7 x 384 -> 640 x 360 -> down to 352
        (333, 500, (384, 576)),
        (100, 2000, (32, 640)),
        (3000, 30, (640, 32)),  # the original ends at a height of 0
    ],
)
def test_size(width, height, expected):
    assert MinMaxResize().size(width, height) == expected
    assert MinMaxResize()(Image.new("RGB", (width, height))).shape == (3, expected[1], expected[0])


def noise(side=64):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_shapes_images_stay_as_they_are(transform):
    image = noise()
    assert torch.equal(transform(image), torch.from_numpy(np.array(image)).permute(2, 0, 1))
    assert transform(image).dtype == torch.uint8


def test_bicubic():
    image = noise(100)
    expected = image.resize((64, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(MinMaxResize(64, 64, 16)(image).permute(1, 2, 0), expected)


def test_augmentation_follows_from_the_seed_alone():
    transform = MinMaxResize(64, 64, 16, randaugment="rand-m9-n2")
    image = noise()
    random.seed(5)
    np.random.seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist()
    first = [transform(image, seed) for seed in range(8)]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    np.random.seed(9)
    assert all(torch.equal(transform(image, seed), first[seed]) for seed in range(8))
    assert len({pixels.numpy().tobytes() for pixels in first}) > 4
    assert torch.equal(transform(image), MinMaxResize(64, 64, 16)(image))


@pytest.mark.parametrize("size", [(100, 70), (70, 101), (48, 48), (33, 160)])
def test_square_as_released(size):
    """The shorter side to 48 pixels, then the middle: as torchvision's Resize and CenterCrop."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    theirs = Compose([Resize(48, InterpolationMode.BICUBIC), CenterCrop(48)])(image)
    ours = SquareResize(48)
    assert np.array_equal(ours(image).permute(1, 2, 0), theirs)
    assert ours.size(*size) == (48, 48)


def test_square_that_keeps_everything():
    image = noise(100).resize((100, 60))
    expected = image.resize((48, 48), Image.Resampling.BICUBIC)
    assert np.array_equal(SquareResize(48, crop=False)(image).permute(1, 2, 0), expected)


def test_square_normalises_as_clip_unless_told_otherwise():
    assert SquareResize(48).mean == (0.48145466, 0.4578275, 0.40821073)
    assert SquareResize(48, std=[0.5] * 3).std == (0.5, 0.5, 0.5)


def test_square_is_augmented_before_it_is_resized():
    image = noise(96)
    square = SquareResize(48, mean=(0.5,) * 3, randaugment="rand-m9-n2")
    same = MinMaxResize(96, 96, 96, randaugment="rand-m9-n2")
    for seed in range(4):
        augmented = Image.fromarray(same(image, seed).permute(1, 2, 0).numpy())
        assert torch.equal(square(image, seed), SquareResize(48)(augmented))


def test_wrong_configuration():
    with pytest.raises(UserError, match="randaugment='auto-m9'"):
        MinMaxResize(randaugment="auto-m9")(noise(), seed=0)
