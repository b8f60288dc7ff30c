from io import BytesIO

import numpy as np
import PIL
import pytest
import simplejpeg
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from transformers import ViltImageProcessor

from vltune.data.transforms import MinMaxResize, SquareResize
from vltune.errors import UserError
from vltune.images import UnreadableImageError


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 480, (512, 384)),
        (480, 640, (384, 512)),
        (500, 500, (384, 384)),
        (427, 640, (384, 576)),  # 575.55 -> 576
        (1000, 300, (608, 192)),  # the longer side decides: 639 x 191.7
        (640, 360, (608, 352)),  # 682.7 x 384 -> 639 x 359.4 -> down to 608 x 352
        (333, 500, (384, 576)),
        (100, 2000, (32, 608)),
        (3000, 30, (608, 32)),  # the original ends at a height of 0
    ],
)
def test_size(width, height, expected):
    assert MinMaxResize().size(width, height) == expected
    assert MinMaxResize()(Image.new("RGB", (width, height))).shape == (3, expected[1], expected[0])


@pytest.mark.parametrize("size", [(640, 480), (640, 360), (500, 300), (1000, 300), (300, 1000), (427, 640), (383, 641)])
def test_size_is_that_of_transformers(size):
    theirs = ViltImageProcessor(do_normalize=False, do_rescale=False, do_pad=False)
    image = Image.new("RGB", size)
    got = theirs(image, return_tensors="pt")["pixel_values"]
    assert MinMaxResize()(image).shape == got.shape[1:]


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
    transform = MinMaxResize(64, 64, 16, randaugment="released-m9-n2")
    image = noise()
    first = [transform(image, seed) for seed in range(8)]
    assert all(torch.equal(transform(image, seed), first[seed]) for seed in range(8))
    assert len({pixels.numpy().tobytes() for pixels in first}) > 4
    assert torch.equal(transform(image), MinMaxResize(64, 64, 16)(image))


@pytest.mark.parametrize("size", [(100, 70), (70, 101), (51, 48), (48, 55), (48, 48), (33, 160)])
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
    square = SquareResize(48, mean=(0.5,) * 3, randaugment="released-m9-n2")
    same = MinMaxResize(96, 96, 96, randaugment="released-m9-n2")
    for seed in range(4):
        augmented = Image.fromarray(same(image, seed).permute(1, 2, 0).numpy())
        assert torch.equal(square(image, seed), SquareResize(48)(augmented))


def jpeg(width, height, mode="RGB", quality=90, **more):
    """Smooth noise, which is to a decoder as photographs are."""
    fine = np.random.default_rng(width).normal(128, 60, (height // 12, width // 12, 3)).clip(0, 255).astype(np.uint8)
    file = BytesIO()
    image = Image.fromarray(fine).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    image.save(file, "JPEG", quality=quality, **more)
    return file.getvalue()


TRANSFORMS = {
    "vilt": lambda decode: MinMaxResize(decode=decode),
    "meter": lambda decode: SquareResize(384, decode=decode),
    "whole": lambda decode: SquareResize(384, crop=False, decode=decode),
    "small": lambda decode: SquareResize(64, decode=decode),
}


def differences(content, make):
    exact, fast = (make(decode).read(content) for decode in ("exact", "fast"))
    assert fast.shape == exact.shape
    assert fast.dtype == exact.dtype == torch.uint8
    assert fast.is_contiguous()
    return (fast.int() - exact.int()).abs()


@pytest.mark.parametrize("transform", ["vilt", "meter", "whole"])
@pytest.mark.parametrize("size", [(640, 480), (427, 640), (500, 375), (200, 150)])
def test_fast_differs_by_two_levels_at_most_where_nothing_is_decoded_smaller(transform, size):
    found = differences(jpeg(*size), TRANSFORMS[transform])
    assert found.max() <= 2
    assert found.float().mean() < 0.15


@pytest.mark.parametrize(("transform", "size"), [("small", (640, 480)), ("vilt", (1280, 960)), ("meter", (1201, 900))])
def test_fast_differs_little_where_it_decodes_smaller(transform, size):
    found = differences(jpeg(*size), TRANSFORMS[transform])
    assert 0 < found.float().mean() < 3
    assert found.max() <= 32


def test_fast_decodes_smaller_but_never_smaller_than_asked_for(monkeypatch):
    decoded, decode = [], simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *a, **k: decoded.append(decode(*a, **k)) or decoded[-1])
    for width, height in ((640, 480), (766, 900), (768, 900), (2000, 1500), (4000, 3000)):
        MinMaxResize(decode="fast").read(jpeg(width, height))
    assert [pixels.shape[:2] for pixels in decoded] == [(480, 640), (900, 766), (450, 384), (563, 750), (750, 1000)]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_a_line_of_pixels_does_not_fill_the_memory(decode, kind):
    """Its shorter side would become 224 before the middle is cut out."""
    Image.new("RGB", (8000, 1)).save(file := BytesIO(), kind)
    with pytest.raises(
        UnreadableImageError, match=r"of 8,000 x 1 pixels, which would be 1,792,000 x 224 pixels before"
    ):
        SquareResize(224, decode=decode).read(file.getvalue())
    assert SquareResize(224, crop=False).read(file.getvalue()).shape == (3, 224, 224)
    assert MinMaxResize().read(file.getvalue()).shape == (3, 32, 608)


def broken(content):
    return content[: len(content) // 2]


def png():
    noise(90).save(file := BytesIO(), "PNG")
    return file.getvalue()


@pytest.mark.parametrize("content", [png(), jpeg(90, 60, "CMYK")], ids=["png", "cmyk"])
def test_all_but_jpegs_in_colours_or_grey_are_exact(content):
    assert not differences(content, TRANSFORMS["small"]).any()


@pytest.mark.parametrize("content", [jpeg(90, 60, "L"), jpeg(90, 60, progressive=True), jpeg(90, 60) + b"more"])
def test_every_jpeg_is_decoded_to_the_same_pixels(content):
    """At its own size, so that nothing is resized."""
    assert not differences(content, lambda decode: MinMaxResize(60, 90, 30, decode=decode)).any()


def test_a_broken_jpeg_is_refused_as_ever():
    for make in TRANSFORMS.values():
        with pytest.raises(UnreadableImageError, match=r"a JPEG image that cannot be decoded .*truncated"):
            make("fast").read(broken(jpeg(640, 480)))


def test_fast_augments_what_it_decoded_before_it_is_resized():
    content, make = jpeg(640, 480), lambda size, decode: SquareResize(size, randaugment="released-m9-n2", decode=decode)
    for seed in range(4):
        assert differences(content, lambda decode: make(384, decode)).max() <= 2
        fast, again, exact = (make(384, decode).read(content, seed) for decode in ("fast", "fast", "exact"))
        assert torch.equal(fast, again)
        assert (fast.int() - exact.int()).abs().max() <= 3
        assert make(64, "fast").read(content, seed).shape == (3, 64, 64)


def test_decoders_have_names():
    exact, fast = (MinMaxResize(decode=decode).decoder for decode in ("exact", "fast"))
    assert exact == f"Pillow {PIL.__version__}"
    assert fast.startswith(exact) and simplejpeg.__version__ in fast


def test_wrong_configuration():
    with pytest.raises(UserError, match=r"dataset\.decode='quick': use exact or fast"):
        MinMaxResize(decode="quick")
    with pytest.raises(UserError, match="randaugment='auto-m9'"):
        MinMaxResize(randaugment="auto-m9")(noise(), seed=0)


def test_crop_flip_is_of_the_seed_and_of_training_alone():
    square = SquareResize(48, augment="crop_flip")
    image = noise()
    assert square.augments and not SquareResize(48).augments
    assert torch.equal(square(image, seed=3), square(image, seed=3))
    assert square(image, seed=3).shape == (3, 48, 48)
    assert not torch.equal(square(image, seed=3), square(image, seed=4))
    assert torch.equal(square(image), SquareResize(48)(image))
    ratio = MinMaxResize(64, 64, 16, augment="crop_flip")
    assert ratio(image, seed=1).shape == ratio(image).shape
    with pytest.raises(UserError, match=r"dataset\.augment='flip': use crop_flip or null"):
        SquareResize(48, augment="flip")


def test_crop_flip_cuts_out_8_to_100_percent_and_mirrors_half_of_the_time():
    gradient = np.stack([np.tile(np.arange(200, dtype=np.uint8), (100, 1))] * 3, axis=2)
    square, mirrored, areas = SquareResize(32, augment="crop_flip"), 0, []
    for seed in range(300):
        row = square(Image.fromarray(gradient), seed)[0, 16].float()
        mirrored += bool(row[-1] < row[0])
        areas.append(float(row.max() - row.min()) / 200)  # the width that is left
    assert 120 < mirrored < 180
    assert 0.15 < min(areas) < 0.3
    assert max(areas) <= 0.68  # of 100 pixels, 4:3 at most


def test_crop_flip_of_a_long_image_takes_its_middle():
    long = np.zeros((10, 1000, 3), np.uint8)
    long[:, 480:520] = 255
    seen = [SquareResize(16, augment="crop_flip")(Image.fromarray(long), seed).float().mean() for seed in range(40)]
    assert sum(mean > 250 for mean in seen) > 30


def test_crop_flip_is_exact_whatever_decodes():
    content = jpeg(640, 480)
    ways = [SquareResize(48, augment="crop_flip", decode=decode) for decode in ("exact", "fast")]
    assert torch.equal(*(way.read(content, seed=5) for way in ways))
