import filecmp
import json

import pytest
from reading import true
from seeing import seen

from vltune.data.shapes.karpathy import write_coco

IMAGES = {"train": 20, "restval": 8, "val": 12, "test": 16}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder, 3, IMAGES)
    return folder


@pytest.fixture(scope="module")
def images(written):
    content = json.loads((written / "dataset_coco.json").read_text())
    assert set(content) == {"images", "dataset"}
    assert content["dataset"] == "coco"
    return content["images"]


def test_karpathys_layout(written, images):
    for split, count in IMAGES.items():
        assert sum(image["split"] == split for image in images) == count
    keys = {"filename", "filepath", "imgid", "cocoid", "split", "sentids", "sentences"}
    for number, image in enumerate(images):
        assert set(image) == keys
        assert image["imgid"] == number
        assert image["filepath"] == ("train2014" if image["split"] == "train" else "val2014")
        assert image["filename"] == f"COCO_{image['filepath']}_{image['cocoid']:012d}.jpg"
    named = {f"{image['filepath']}/{image['filename']}" for image in images}
    assert named == {path.relative_to(written).as_posix() for path in written.rglob("*.jpg")}
    assert {path.name for path in written.iterdir()} == {"dataset_coco.json", "train2014", "val2014"}


def test_captions_are_true_and_tell_ranked_images_apart(written, images):
    for split in IMAGES:
        of_split = [image for image in images if image["split"] == split]
        shown = [seen(written / image["filepath"] / image["filename"])[0] for image in of_split]
        for row, image in enumerate(of_split):
            captions = {sentence["raw"] for sentence in image["sentences"]}
            assert len(captions) == 5
            for caption in captions:
                held = [k for k, objects in enumerate(shown) if true(caption, objects)]
                assert held == [row] if split in ("val", "test") else row in held


def test_same_seed_same_bytes(written, tmp_path):
    write_coco(tmp_path / "again", 3, IMAGES)
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert len(files) == 57
    assert filecmp.cmpfiles(written, tmp_path / "again", files, shallow=False)[1:] == ([], [])
