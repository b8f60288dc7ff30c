import filecmp
import itertools
import json
from collections import Counter

import pytest
from reading import true
from seeing import seen

from vltune.data.shapes.scenes import COLOURS, SHAPES, SIZES
from vltune.data.shapes.snli_ve import LABELS, write_raw

IMAGES = {"train": 40, "val": 12, "test": 20}
NAMES = {"train": "train", "val": "dev", "test": "test"}


def judge(caption, objects, card):
    """The label, by looking at every picture that the card may hide."""
    under = [
        {"size": size, "color": colour, "shape": shape, "x": card % 3, "y": card // 3}
        for size, colour, shape in itertools.product(SIZES, COLOURS, SHAPES)
    ]
    answers = {true(caption, objects)} | {true(caption, [*objects, thing]) for thing in under}
    return {(True,): "entailment", (False,): "contradiction"}.get(tuple(answers), "neutral")


def examples(folder, name):
    return [json.loads(line) for line in (folder / f"snli_ve_{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snli_ve")
    write_raw(folder, 3, IMAGES)
    return folder


def test_official_layout(written):
    pictures = set()
    for split, name in NAMES.items():
        found = examples(written, name)
        assert len(found) == 3 * IMAGES[split]
        assert len({example["pairID"] for example in found}) == len(found)
        for example in found:
            image, label = example["Flickr30K_ID"], example["gold_label"]
            pictures.add(f"{image}.jpg")
            assert example == {
                "Flickr30K_ID": image,
                "annotator_labels": [label],
                "captionID": f"{image}.jpg#0",
                "gold_label": label,
                "pairID": f"{image}.jpg#0r1{label[0]}",
                "sentence1": example["sentence1"],
                "sentence2": example["sentence2"],
            }
    assert len(pictures) == sum(IMAGES.values())
    assert pictures == {path.name for path in (written / "flickr30k-images").iterdir()}


def test_labels_are_right(written, tokenizer):
    for name in NAMES.values():
        for example in examples(written, name):
            objects, [card] = seen(written / "flickr30k-images" / f"{example['Flickr30K_ID']}.jpg")
            assert judge(example["sentence2"], objects, card) == example["gold_label"], (example, objects, card)
            assert true(example["sentence1"], objects)
            assert all(len(tokenizer(word)) == 3 for word in example["sentence2"].split())


def test_neither_the_hypothesis_nor_the_image_tells_the_label(written):
    for name in NAMES.values():
        for key in ("sentence2", "Flickr30K_ID"):
            by_key = {}
            for example in examples(written, name):
                by_key.setdefault(example[key], Counter())[example["gold_label"]] += 1
            assert all(len({counts[label] for label in LABELS}) == 1 for counts in by_key.values())


def test_contradictions_are_not_all_far_fetched(written):
    found = [example for example in examples(written, "train") if example["gold_label"] == "contradiction"]
    near = 0
    for example in found:
        objects, _ = seen(written / "flickr30k-images" / f"{example['Flickr30K_ID']}.jpg")
        near += any(f"{thing['color']} {thing['shape']}" in example["sentence2"] for thing in objects)
    assert near > len(found) / 3


def test_same_seed_same_bytes(written, tmp_path):
    write_raw(tmp_path / "again", 3, IMAGES)
    write_raw(tmp_path / "other", 4, IMAGES)
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert len(files) == 75
    assert filecmp.cmpfiles(written, tmp_path / "again", files, shallow=False)[1:] == ([], [])
    assert filecmp.cmpfiles(written, tmp_path / "other", files, shallow=False)[0] == []
