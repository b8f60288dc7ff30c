import filecmp
import json

import numpy as np
import pytest
from PIL import Image
from reading import true
from seeing import seen

from vltune.data.shapes import karpathy
from vltune.data.shapes.karpathy import write_raw
from vltune.data.shapes.scenes import draw

IMAGES = {"train": 40, "val": 20, "test": 60}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("karpathy")
    write_raw(folder, 3, IMAGES)
    return folder


@pytest.fixture(scope="module")
def content(written):
    return json.loads((written / "dataset_flickr30k.json").read_text())


def test_official_layout(written, content):
    assert set(content) == {"images", "dataset"}
    assert content["dataset"] == "flickr30k"
    images = content["images"]
    assert [image["imgid"] for image in images] == list(range(120))
    for split, count in IMAGES.items():
        assert sum(image["split"] == split for image in images) == count
    for image in images:
        assert set(image) == {"filename", "imgid", "split", "sentids", "sentences"}
        assert [sentence["sentid"] for sentence in image["sentences"]] == image["sentids"]
        for sentence in image["sentences"]:
            assert set(sentence) == {"raw", "tokens", "imgid", "sentid"}
            assert sentence["tokens"] == sentence["raw"].split()
            assert sentence["imgid"] == image["imgid"]
    assert sorted(sentid for image in images for sentid in image["sentids"]) == list(range(600))
    assert {image["filename"] for image in images} == {path.name for path in (written / "flickr30k-images").iterdir()}
    with Image.open(written / "flickr30k-images" / images[0]["filename"]) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")


def test_captions_tell_images_apart(written, content, tokenizer):
    for split in IMAGES:
        images = [image for image in content["images"] if image["split"] == split]
        shown = [seen(written / "flickr30k-images" / image["filename"])[0] for image in images]
        for row, image in enumerate(images):
            captions = [sentence["raw"] for sentence in image["sentences"]]
            assert len(set(captions)) == 5
            assert all(len(caption.split()) <= 30 for caption in captions)
            for caption in captions:
                held = [k for k, objects in enumerate(shown) if true(caption, objects)]
                assert row in held if split == "train" else held == [row], (caption, shown[row])
                assert all(len(tokenizer(word)) == 3 for word in caption.split())


def test_a_scene_that_is_a_part_of_another_gives_way():
    """Among 250 drawn ones there are such, of which no caption would be true alone."""
    rngs = [np.random.default_rng(seed) for seed in (0, 0, 1)]
    drawn, apart = draw(rngs[0], 250, "test"), karpathy._apart(rngs[1], 250, "test")
    assert karpathy._is_held(drawn.objects).any()
    assert len(apart) == 250 and not karpathy._is_held(apart.objects).any()
    captions = karpathy._captions(rngs[2], apart, distinct=True)
    assert {len(set(of_one)) for of_one in captions} == {5}


def test_same_seed_same_bytes(written, tmp_path):
    write_raw(tmp_path / "again", 3, IMAGES)
    write_raw(tmp_path / "other", 4, IMAGES)
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert len(files) == 121
    assert filecmp.cmpfiles(written, tmp_path / "again", files, shallow=False)[1:] == ([], [])
    assert filecmp.cmpfiles(written, tmp_path / "other", files, shallow=False)[0] == []
