import filecmp
import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from reading import NOUN, related, things
from seeing import seen

from vltune.data.shapes import scenes, statements
from vltune.data.shapes.nlvr2 import write_raw
from vltune.data.shapes.render import render, write_image
from vltune.data.shapes.scenes import POSITIONS

IMAGES = {"train": 60, "val": 20, "test": 40}
NAMES = {"train": "train", "val": "dev", "test": "test1"}
PLACE = "|".join(sorted(POSITIONS, key=len, reverse=True))
CLAUSE = rf"a (?P<one>.+?)(?: at the (?P<place>{PLACE})| (?P<relation>left of|right of|above|below) a (?P<other>.+))?"


def described(objects, text):
    said = re.fullmatch(rf"{NOUN}(?:s|es)?", text).groupdict()
    wanted = {k: v for k, v in said.items() if v not in (None, "object")}
    assert wanted
    return [thing for thing in objects if all(thing[k] == v for k, v in wanted.items())]


def holds(clause, objects):
    one, place, relation, other = re.fullmatch(CLAUSE, clause).group("one", "place", "relation", "other")
    found = described(objects, one)
    if place:
        found = [thing for thing in found if POSITIONS[3 * thing["y"] + thing["x"]] == place]
    if relation:
        found = [t for t in found if any(related(t, relation, o) for o in described(objects, other))]
    return bool(found)


def judge(sentence, left, right):
    """Is a statement true?  Read from its words alone."""
    if match := re.fullmatch(r"there are more (.+) in the (left|right) image than in the (left|right) image", sentence):
        count = {"left": len(described(left, match[1])), "right": len(described(right, match[1]))}
        return count[match[2]] > count[match[3]]
    if match := re.fullmatch(r"there are as many (.+) in the left image as in the right image", sentence):
        return len(described(left, match[1])) == len(described(right, match[1]))
    if match := re.fullmatch(r"there is (a .+) in the left image and (a .+) in the right image", sentence):
        return holds(match[1], left) and holds(match[2], right)
    clause, images = re.fullmatch(r"there is (a .+) in (each|only 1|at most 1) image", sentence).groups()
    count = holds(clause, left) + holds(clause, right)
    return {"each": count == 2, "only 1": count == 1, "at most 1": count <= 1}[images]


def examples(folder, name):
    return [json.loads(line) for line in (folder / "data" / f"{name}.json").read_text().splitlines()]


def image_paths(folder, example):
    stem = example["identifier"].rpartition("-")[0]
    name = stem.split("-")[0]
    place = folder / (f"images/train/{example['directory']}" if name == "train" else name)
    return [place / f"{stem}-img{side}.png" for side in range(2)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nlvr2")
    write_raw(folder, 3, IMAGES)
    return folder


def test_pictures_are_read_as_they_were_drawn(tmp_path):
    drawn = scenes.draw(np.random.default_rng(5), 60)
    for row, pixels in enumerate(render(drawn)):
        for name in ("a.png", "a.jpg"):
            write_image(tmp_path / name, pixels)
            assert seen(tmp_path / name) == (things(drawn, row), [])


def test_official_layout(written):
    assert sorted(path.name for path in (written / "data").iterdir()) == ["dev.json", "test1.json", "train.json"]
    pictures = set()
    for split, name in NAMES.items():
        found = examples(written, name)
        keys = {"identifier", "sentence", "label"} | ({"directory"} if name == "train" else set())
        assert all(set(example) == keys for example in found)
        ids = [example["identifier"] for example in found]
        assert len(set(ids)) == len(ids) == 4 * IMAGES[split]
        assert ids[:5] == [f"{name}-0-0-{k}" for k in range(4)] + [f"{name}-0-1-0"]
        pictures |= {path for example in found for path in image_paths(written, example)}
    assert pictures == set(written.rglob("*.png"))
    for path in pictures:
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (64, 64), "RGB")


def test_labels_are_right(written):
    for name in NAMES.values():
        for example in examples(written, name):
            (left, _), (right, _) = map(seen, image_paths(written, example))
            assert str(judge(example["sentence"], left, right)) == example["label"], (example, left, right)


def test_neither_the_statement_nor_the_images_tell_the_label(written):
    for name in NAMES.values():
        for key in (lambda e: e["sentence"], lambda e: e["identifier"].rpartition("-")[0]):
            by_key = {}
            for example in examples(written, name):
                by_key.setdefault(key(example), Counter())[example["label"]] += 1
            assert all(counts["True"] == counts["False"] for counts in by_key.values())


def test_every_form_occurs(tokenizer):
    rng = np.random.default_rng(0)
    left, right = (scenes.draw(rng, 400) for _ in range(2))
    stated = statements.state(rng, left, right)
    assert all(len(set(four)) == 4 for four in stated)
    sentences = [sentence for four in stated for sentence in four]
    assert len(sentences) == 800
    for part in ("in each", "in only 1", "at most 1", "left image and", "more", "as many"):
        assert 0.08 < np.mean([part in sentence for sentence in sentences]) < 0.35, part
    for part in (" at the top", " above ", " left of ", " object", "circle", "large"):
        assert np.mean([part in sentence for sentence in sentences]) > 0.03, part
    words = {word for sentence in sentences for word in sentence.split()}
    assert all(len(tokenizer(word)) == 3 for word in words)
    assert max(len(sentence.split()) for sentence in sentences) <= 30


def test_same_seed_same_bytes(written, tmp_path):
    write_raw(tmp_path / "again", 3, IMAGES)
    write_raw(tmp_path / "other", 4, IMAGES)
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert len(files) == 2 * sum(IMAGES.values()) + 3
    assert filecmp.cmpfiles(written, tmp_path / "again", files, shallow=False)[1:] == ([], [])
    assert filecmp.cmpfiles(written, tmp_path / "other", files, shallow=False)[0] == []
