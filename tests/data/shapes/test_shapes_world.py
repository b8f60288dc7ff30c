import filecmp
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from vltune.data.shapes import scenes
from vltune.data.shapes.render import SIDE, render
from vltune.data.shapes.vqav2 import write_raw

IMAGES = {"train": 12, "val": 6, "test": 8}
OFFICIAL = ["v2_mscoco_train2014_annotations.json", "v2_mscoco_val2014_annotations.json"] + [
    f"v2_OpenEnded_mscoco_{subtype}_questions.json" for subtype in ("train2014", "val2014", "test2015", "test-dev2015")
]


def load(folder, name):
    return json.loads((folder / name).read_text())


class TestScenes:
    def test_objects(self):
        drawn = scenes.draw(np.random.default_rng(0), 3000)
        count = (drawn.objects > 0).sum(1)
        assert np.bincount(count).tolist()[:2] == [0, 0]
        assert np.bincount(count)[2:].min() > 500
        assert count.max() == 5
        for values, names in ((drawn.shape, scenes.SHAPES), (drawn.colour, scenes.COLOURS), (drawn.size, scenes.SIZES)):
            assert ((values > 0) == (drawn.objects > 0)).all()
            shares = np.bincount(values.ravel())[1:] / count.sum()
            assert shares == pytest.approx(np.full(len(names), 1 / len(names)), abs=0.02)

    def test_no_two_objects_of_a_scene_are_equal(self):
        for row in scenes.draw(np.random.default_rng(0), 1000).objects.tolist():
            there = [value for value in row if value]
            assert len(set(there)) == len(there)

    def test_splits_share_no_layout(self):
        layouts = [
            set(scenes.draw(np.random.default_rng(0), 4000, s).layout.tolist()) for s in ("train", "val", "test")
        ]
        assert not layouts[0] & layouts[1]
        assert not (layouts[0] | layouts[1]) & layouts[2]

    def test_layout_tells_arrangements_apart(self):
        drawn = scenes.draw(np.random.default_rng(0), 500)
        assert len(set(drawn.layout.tolist())) == len({tuple(row) for row in drawn.objects.tolist()})


class TestRender:
    def test_background_and_objects_are_where_the_scene_says(self):
        drawn = scenes.draw(np.random.default_rng(1), 300)
        pixels = render(drawn).astype(int)
        assert pixels.shape == (300, 3, SIDE, SIDE)
        changed = (pixels != drawn.tint[:, :, None, None]).any(1)[:, :63, :63].reshape(300, 3, 21, 3, 21)
        assert np.array_equal(changed.any((2, 4)).reshape(300, 9), drawn.shape > 0)
        area = changed.sum((2, 4)).reshape(300, 9)
        for shape in range(1, 6):
            small, large = (area[(drawn.shape == shape) & (drawn.size == size)] for size in (1, 2))
            assert small.max() < large.min()

    def test_colours(self):
        drawn = scenes.draw(np.random.default_rng(1), 300)
        rows, cells = np.nonzero(drawn.shape == 2)  # squares fill their middle
        middle = render(drawn)[rows, :, cells // 3 * 21 + 10, cells % 3 * 21 + 10].astype(int)
        for index, name in enumerate(scenes.COLOURS, start=1):
            red, green, blue = middle[drawn.colour[rows, cells] == index].mean(0)
            assert {
                "red": red > 2 * max(green, blue),
                "green": green > 2 * max(red, blue),
                "blue": blue > 2 * max(red, green),
                "yellow": min(red, green) > 2 * blue,
                "purple": min(red, blue) > 2 * green,
                "cyan": min(green, blue) > 2 * red,
            }[name]


class TestRaw:
    def test_same_seed_same_bytes(self, tmp_path):
        for name, seed in (("a", 5), ("b", 5), ("c", 6)):
            write_raw(tmp_path / name, seed, IMAGES, 2)
        files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
        assert len(files) == 26 + 7
        match, differ, errors = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)
        assert (len(match), differ, errors) == (33, [], [])
        match, _, _ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)
        assert match == []

    def test_fewer_questions_leave_the_images_as_they_are(self, tmp_path):
        write_raw(tmp_path / "a", 5, IMAGES, 1)
        write_raw(tmp_path / "b", 5, IMAGES, 4)
        for path in (tmp_path / "a").rglob("*.jpg"):
            assert filecmp.cmp(path, tmp_path / "b" / path.relative_to(tmp_path / "a"), shallow=False)

    def test_official_layout(self, raw):
        names = {path.name for path in raw.iterdir()}
        assert names == {*OFFICIAL, "v2_mscoco_test2015_annotations.json", "train2014", "val2014", "test2015"}
        for subtype, count in (("train2014", 60), ("val2014", 20), ("test2015", 30)):
            questions = load(raw, f"v2_OpenEnded_mscoco_{subtype}_questions.json")
            assert set(questions) == {"info", "task_type", "data_type", "data_subtype", "license", "questions"}
            assert questions["data_subtype"] == subtype
            assert all(set(q) == {"image_id", "question", "question_id"} for q in questions["questions"])
            annotations = load(raw, f"v2_mscoco_{subtype}_annotations.json")
            assert set(annotations) == {"info", "data_type", "data_subtype", "license", "annotations"}
            for annotation in annotations["annotations"]:
                assert set(annotation) == {
                    *("question_type", "multiple_choice_answer", "answers", "image_id", "answer_type", "question_id")
                }
                assert [set(human) for human in annotation["answers"]] == [
                    {"answer", "answer_confidence", "answer_id"}
                ] * 10
            ids = [q["question_id"] for q in questions["questions"]]
            assert ids == [a["question_id"] for a in annotations["annotations"]]
            assert len(set(ids)) == len(ids) == 4 * count
            paths = {f"COCO_{subtype}_{q['image_id']:012d}.jpg" for q in questions["questions"]}
            assert paths == {path.name for path in (raw / subtype).iterdir()}
        assert (raw / "train2014" / "COCO_train2014_000000000001.jpg").exists()
        test, dev = (
            load(raw, f"v2_OpenEnded_mscoco_{s}_questions.json")["questions"] for s in ("test2015", "test-dev2015")
        )
        assert len(dev) == 60
        assert all(question in test for question in dev)

    def test_images(self, raw):
        seen = set()
        for path in raw.rglob("*.jpg"):
            with Image.open(path) as image:
                assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")
            seen.add(path.read_bytes())
        assert len(seen) == 110

    def test_language_prior(self, tmp_path):
        """The most frequent training answer to the same question, or to its type, scores low on test."""
        write_raw(tmp_path, images={"train": 800, "val": 1, "test": 400})

        def entries(subtype):
            questions = load(tmp_path, f"v2_OpenEnded_mscoco_{subtype}_questions.json")["questions"]
            annotations = load(tmp_path, f"v2_mscoco_{subtype}_annotations.json")["annotations"]
            return list(zip([q["question"] for q in questions], annotations, strict=True))

        by_question, by_type = defaultdict(Counter), defaultdict(Counter)
        for question, annotation in entries("train2014"):
            for counter in (by_question[question], by_type[annotation["question_type"]]):
                counter[annotation["multiple_choice_answer"]] += 1
        scores = []
        for question, annotation in entries("test2015"):
            seen = by_question.get(question) or by_type[annotation["question_type"]]
            guess = seen.most_common(1)[0][0]
            scores.append(min(1, 0.3 * sum(human["answer"] == guess for human in annotation["answers"])))
        assert len(scores) == 1600
        assert 0.2 < np.mean(scores) < 0.45
