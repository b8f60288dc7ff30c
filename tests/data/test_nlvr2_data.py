import json
import os
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from vltune.data.arrow import open_table, write_table
from vltune.data.collate import Collate
from vltune.data.dataset import open_examples
from vltune.data.nlvr2.prepare import SCHEMA, prepare
from vltune.data.nlvr2.reader import NLVR2Reader
from vltune.errors import BadExampleError, UserError

# split -> (pair, statements and their labels)
PAIRS = {
    "train": [
        ("train-5-0", [("a dog", "True"), ("two cats", "False")]),
        ("train-5-1", [("a dog", "False"), ("two cats", "True")]),
        ("train-6-3", [("a dog", "True")]),
    ],
    "dev": [("dev-0-0", [("a red square", "False")]), ("dev-0-2", [("a red square", "True")])],
    "test1": [("test1-9-1", [("one circle", "True")])],
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory, paint):
    folder = tmp_path_factory.mktemp("nlvr2")
    (folder / "data").mkdir()
    number = 0
    for split, pairs in PAIRS.items():
        lines = []
        for place, (pair, statements) in enumerate(pairs):
            images = folder / (f"images/train/{10 + place}" if split == "train" else split)
            for side in range(2):
                paint(images / f"{pair}-img{side}.png", number := number + 1, (40 + 8 * side, 30 + 5 * number))
            for index, (sentence, label) in enumerate(statements):
                entry = {"identifier": f"{pair}-{index}", "sentence": sentence, "label": label, "writer": 3}
                lines.append(json.dumps(entry | ({"directory": 10 + place} if split == "train" else {})))
        lines.sort(key=lambda line: line[-30:])  # the statements of a pair need not stand together
        (folder / "data" / f"{split}.json").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(raw, folder, progress=False)
    return folder


@pytest.fixture
def raw_copy(raw, tmp_path):
    return shutil.copytree(raw, tmp_path / "raw")


def image_path(raw, row, side):
    [path] = raw.rglob(f"{row['identifier']}-img{side}.png")
    return path


class TestPrepare:
    def test_rows(self, raw, prepared):
        for split, pairs in PAIRS.items():
            table = open_table(prepared / f"nlvr2_{split}-00000-of-00001.arrow", SCHEMA.names)
            assert table.schema.equals(SCHEMA)
            rows = table.to_pylist()
            found = {row["identifier"]: dict(zip(row["questions"], row["answers"], strict=True)) for row in rows}
            assert found == {pair: dict(statements) for pair, statements in pairs}
            for row in rows:
                for side in range(2):
                    assert row[f"image_{side}"] == image_path(raw, row, side).read_bytes()

    def test_counts(self, raw, prepared, tmp_path):
        counts = prepare(raw, tmp_path, progress=False)
        assert (counts["train pairs"], counts["train statements"]) == (3, 5)
        assert (counts["dev pairs"], counts["test1 statements"], counts["unreadable images"]) == (2, 1, 0)
        manifest = json.loads((prepared / "manifest.json").read_text())
        assert manifest["statements"] == {"train": 5, "dev": 2, "test1": 1}
        assert sorted(manifest["sources"]) == ["dev.json", "test1.json", "train.json"]
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "manifest.json",
            *(f"nlvr2_{split}-00000-of-00001.arrow" for split in ("dev", "test1", "train")),
        ]

    def test_a_clone_and_other_image_folders(self, raw_copy, prepared, tmp_path):
        (raw_copy / "nlvr2").mkdir()
        (raw_copy / "data").rename(raw_copy / "nlvr2" / "data")
        for split in ("dev", "test1"):
            (raw_copy / split).rename(raw_copy / "images" / split)
        prepare(raw_copy, tmp_path / "out", progress=False)
        for path in prepared.iterdir():
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()

    def test_balanced_and_unbalanced_sets_are_told_by_the_places_of_their_statements(self, raw_copy, tmp_path):
        (raw_copy / "data" / "balanced").mkdir()
        for name, identifiers in (("dev", ["dev-0-2-0"]), ("test1", ["test1-9-1-0"])):
            lines = "".join(json.dumps({"identifier": identifier}) + "\n" for identifier in identifiers)
            (raw_copy / "data" / "balanced" / f"balanced_{name}.json").write_text(lines)
        (raw_copy / "data" / "unbalanced").mkdir()
        unbalanced = raw_copy / "data" / "unbalanced" / "unbalanced_dev.json"
        unbalanced.write_text("".join(f'{{"identifier": "dev-0-{pair}-0"}}\n' for pair in (2, 0)))
        prepare(raw_copy, tmp_path / "out", progress=False)
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        rows = open_table(tmp_path / "out" / "nlvr2_dev-00000-of-00001.arrow", ["identifier"]).to_pylist()
        place = [row["identifier"] for row in rows].index("dev-0-2")
        assert manifest["subsets"] == {
            "nlvr2_balanced_dev": {"of": "nlvr2_dev", "texts": [place]},
            "nlvr2_unbalanced_dev": {"of": "nlvr2_dev", "texts": [0, 1]},
            "nlvr2_balanced_test1": {"of": "nlvr2_test1", "texts": [0]},
        }
        assert {"balanced_dev.json", "unbalanced_dev.json"} < manifest["sources"].keys()
        assert not any("balanced" in stem for stem in manifest["splits"])

        (raw_copy / "dev" / "dev-0-0-img0.png").write_bytes(b"")  # the places move with the rows that are left
        prepare(raw_copy, tmp_path / "out", max_bad=1, progress=False)
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["subsets"]["nlvr2_unbalanced_dev"]["texts"] == [0]
        unbalanced.write_text('{"identifier": "dev-7-0-0"}\n')
        with pytest.raises(BadExampleError, match=r'unbalanced_dev\.json line 1 \(.*: dev\.json has no "dev-7-0-0"\)'):
            prepare(raw_copy, tmp_path / "out", progress=False)

    @pytest.mark.parametrize("key", ["label", "sentence"])
    def test_a_subset_that_says_otherwise_than_its_split_is_named(self, raw_copy, tmp_path, key):
        entry = json.loads((raw_copy / "data" / "dev.json").read_text().splitlines()[0])
        entry[key] = "False" if entry[key] == "True" else "True"
        (raw_copy / "data" / "balanced").mkdir()
        (raw_copy / "data" / "balanced" / "balanced_dev.json").write_text(json.dumps(entry))
        told = rf'balanced_dev\.json line 1 \(.*: its {key} is ".*", that of dev\.json ".*"\)'
        with pytest.raises(BadExampleError, match=told):
            prepare(raw_copy, tmp_path / "out", progress=False)

    @pytest.mark.parametrize("place", ["a folder", "a link to nothing", "a pipe"])
    def test_a_subset_that_is_no_file_is_told(self, raw_copy, tmp_path, place):
        file = raw_copy / "data" / "balanced" / "balanced_dev.json"
        file.parent.mkdir()
        {"a folder": file.mkdir, "a pipe": lambda: os.mkfifo(file)}.get(place, lambda: file.symlink_to("none"))()
        with pytest.raises(UserError, match=rf"balanced_dev\.json: {place}, where a file belongs"):
            prepare(raw_copy, tmp_path / "out", progress=False)

    def test_missing_files_are_all_named(self, raw_copy, tmp_path):
        (raw_copy / "data" / "dev.json").unlink()
        shutil.rmtree(raw_copy / "test1")
        with pytest.raises(UserError, match=r"raw: lacks data/dev\.json, test1/; see https"):
            prepare(raw_copy, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"identifier": "dev-1', "line 3 .not an official NLVR2 entry: it breaks off"),
            ('{"identifier": "dev-1-0-0", "label": "True"}', "line 3 .*lacks 'sentence'"),
            (
                '{"identifier": "dev-1-0-0", "sentence": "a", "label": "yes"}',
                'line 3 .*label is "yes", none of False, True',
            ),
            (
                '{"identifier": "dev-1-0-0", "sentence": "\\ud83d", "label": "True"}',
                r"line 3 .*sentence is .\\ud83d., with half of a surrogate pair",
            ),
            ("[]", "line 3 .not an official NLVR2 entry"),
        ],
    )
    def test_broken_lines(self, raw_copy, tmp_path, line, message):
        with (raw_copy / "data" / "dev.json").open("a") as file:
            file.write(line + "\n")
        with pytest.raises(UserError, match=rf"dev\.json {message}") as error:
            prepare(raw_copy, tmp_path / "out", progress=False)
        assert "\n" not in str(error.value)

    def test_bad_images(self, raw_copy, tmp_path):
        (raw_copy / "dev" / "dev-0-2-img1.png").write_bytes(b"<html>404</html>")
        (raw_copy / "test1" / "test1-9-1-img0.png").unlink()
        with pytest.raises(BadExampleError, match=r"1 bad image or entry .* test1/test1-9-1-img0\.png \(missing\)"):
            prepare(raw_copy, tmp_path / "out", progress=False)
        shutil.copy(raw_copy / "dev" / "dev-0-0-img0.png", raw_copy / "test1" / "test1-9-1-img0.png")
        (raw_copy / "images" / "train" / "10" / "train-5-0-img0.png").unlink()
        counts = prepare(raw_copy, tmp_path / "out", max_bad=2, progress=False)
        assert (counts["dev pairs"], counts["dev statements"], counts["train pairs"]) == (1, 1, 2)
        assert counts["unreadable images"] == 2
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["bad_images"] == {
            "images/train/10/train-5-0-img0.png": "missing",
            "dev/dev-0-2-img1.png": "a web page, not the file itself",
        }


@pytest.fixture
def subsets(raw_copy, tmp_path):
    """Prepared with a balanced dev of one of its two statements and an unbalanced one of both."""
    for which, pairs in (("balanced", [2]), ("unbalanced", [2, 0])):
        (raw_copy / "data" / which).mkdir()
        lines = "".join(json.dumps({"identifier": f"dev-0-{pair}-0"}) + "\n" for pair in pairs)
        (raw_copy / "data" / which / f"{which}_dev.json").write_text(lines)
    prepare(raw_copy, tmp_path / "subsets", progress=False)
    return tmp_path / "subsets"


class TestSubsets:
    def test_texts_and_images_are_those_of_the_subset_alone(self, subsets, raw, tokenizer, transform):
        dev = NLVR2Reader(subsets, ["nlvr2_dev"], tokenizer, transform)
        balanced = NLVR2Reader(subsets, ["nlvr2_balanced_dev"], tokenizer, transform)
        assert (len(balanced), balanced.pictures()) == (1, 1)
        assert (balanced[0]["pair"], balanced[0]["label"]) == ("dev-0-2", 1)
        assert balanced[0].keys() == dev[1].keys()
        [same] = [dev[i] for i in range(2) if dev[i]["id"] == balanced[0]["id"]]
        assert torch.equal(same["image_1"], balanced[0]["image_1"])
        assert balanced.content(0, 1).to_pybytes() == (raw / "dev" / "dev-0-2-img1.png").read_bytes()
        assert list(balanced.texts()) == [balanced[0]["text_ids"]]
        assert balanced.lengths.tolist() == [len(balanced[0]["text_ids"])]
        assert pickle.loads(pickle.dumps(balanced))[0]["pair"] == "dev-0-2"

    def test_people_look_at_the_same_texts(self, subsets, raw, tokenizer, transform):
        [example] = NLVR2Reader(subsets, ["nlvr2_balanced_dev"], tokenizer, transform)
        asked = open_examples("nlvr2", subsets, ["nlvr2_balanced_dev"]).asked(example["id"], "True")
        assert asked.answers == {"True": 1.0}
        assert asked.shown.images == tuple((raw / "dev" / f"dev-0-2-img{side}.png").read_bytes() for side in range(2))

    def test_subsets_are_read_beside_whole_splits(self, subsets, tokenizer, transform):
        splits = ["nlvr2_unbalanced_dev", "nlvr2_train", "nlvr2_test1"]
        dataset = NLVR2Reader(subsets, splits, tokenizer, transform)
        parts = [NLVR2Reader(subsets, [split], tokenizer, transform) for split in splits]
        assert [len(part) for part in parts] == [2, 5, 1]
        pairs = [part[i]["pair"] for part in parts for i in range(len(part))]
        assert [dataset[i]["pair"] for i in range(len(dataset))] == pairs
        assert dataset.pictures() == 2 + 3 + 1
        ids = [dataset[i]["id"] for i in range(len(dataset))]
        assert ids[:7] == list(range(7))
        assert ids[7] == 7 + parts[2][0]["id"]

    def test_statements_of_two_subsets_are_not_read_twice(self, subsets, tokenizer, transform):
        for both in (["nlvr2_unbalanced_dev", "nlvr2_balanced_dev"], ["nlvr2_dev", "nlvr2_balanced_dev"]):
            with pytest.raises(UserError, match=rf"{both[0]} and {both[1]} share texts"):
                NLVR2Reader(subsets, both, tokenizer, transform)

    def test_shuffled_images_are_others_of_the_subset(self, subsets, tokenizer, transform):
        both = NLVR2Reader(subsets, ["nlvr2_unbalanced_dev"], tokenizer, transform)
        shuffled = NLVR2Reader(subsets, ["nlvr2_unbalanced_dev"], tokenizer, transform, images="shuffled")
        assert torch.equal(shuffled[0]["image_0"], both[1]["image_0"])
        with pytest.raises(UserError, match="images=shuffled needs two images or more; there are 1"):
            NLVR2Reader(subsets, ["nlvr2_balanced_dev"], tokenizer, transform, images="shuffled")

    def test_a_name_that_is_neither_a_split_nor_a_subset(self, subsets, tokenizer, transform):
        listed = "nlvr2_train, nlvr2_dev, nlvr2_test1, nlvr2_balanced_dev, nlvr2_unbalanced_dev"
        message = rf"subsets: has no split nlvr2_balanced_test1; manifest\.json lists {listed}: choose of these with"
        with pytest.raises(UserError, match=message):
            NLVR2Reader(subsets, ["nlvr2_balanced_test1"], tokenizer, transform)

    @pytest.mark.parametrize("texts", [[1, 2], [-1, 0]])
    def test_texts_that_the_split_lacks(self, subsets, tokenizer, transform, texts):
        manifest = json.loads((subsets / "manifest.json").read_text())
        manifest["subsets"]["nlvr2_balanced_dev"]["texts"] = texts
        (subsets / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(
            UserError,
            match=r"manifest\.json gives nlvr2_balanced_dev texts that its files lack; delete it and run `vlt",
        ):
            NLVR2Reader(subsets, ["nlvr2_train", "nlvr2_balanced_dev"], tokenizer, transform)


class TestReading:
    def test_raw_to_batch(self, raw, prepared, tokenizer, transform):
        dataset = NLVR2Reader(prepared, ["nlvr2_train", "nlvr2_dev"], tokenizer, transform)
        assert dataset.pictures() == 5
        assert dataset.facts == {}
        expected = {
            (pair, tuple(tokenizer(sentence))): int(label == "True")
            for pair, statements in PAIRS["train"] + PAIRS["dev"]
            for sentence, label in statements
        }
        examples = [dataset[i] for i in range(len(dataset))]
        assert {(e["pair"], tuple(e["text_ids"])): e["label"] for e in examples} == expected
        assert [e["id"] for e in examples] == list(range(7))
        for e in examples:
            for side in range(2):
                [path] = raw.rglob(f"{e['pair']}-img{side}.png")
                assert torch.equal(e[f"image_{side}"], transform(Image.open(path).convert("RGB")))
        batch = Collate(tokenizer.pad_id, transform.mean, transform.std)(examples)
        assert batch["label"].tolist() == [e["label"] for e in examples]
        assert batch["image_1"].shape[:2] == (7, 3)
        assert batch["image_1_size"].tolist() == [list(e["image_1"].shape[1:]) for e in examples]

    def test_the_images_of_a_pair_are_augmented_apart(self, prepared, tokenizer, transform, monkeypatch):
        dataset, seeds = NLVR2Reader(prepared, ["nlvr2_train"], tokenizer, transform), []
        pixels = torch.zeros(3, 4, 4)
        monkeypatch.setattr(dataset, "_pixels", lambda picture, which, seed: seeds.append(seed) or pixels)
        dataset.seen(0, 5)
        dataset.seen(0, None)
        assert seeds[0] == 5
        assert len({seed % 2**32 for seed in seeds[:2]}) == 2
        assert seeds[2:] == [None, None]

    def test_a_sentence_of_a_set_is_one_over_its_pairs(self, prepared, tokenizer, transform):
        dataset = NLVR2Reader(prepared, ["nlvr2_train"], tokenizer, transform)
        same = {}
        for i in range(len(dataset)):
            e = dataset[i]
            same.setdefault(e["sentence"], set()).add((e["pair"], tuple(e["text_ids"])))
        dog, cats = tuple(tokenizer("a dog")), tuple(tokenizer("two cats"))
        assert sorted(map(sorted, same.values())) == sorted(
            [
                [("train-5-0", dog), ("train-5-1", dog)],
                [("train-5-0", cats), ("train-5-1", cats)],
                [("train-6-3", dog)],
            ]
        )

    def test_a_sentence_of_another_split_is_another(self, prepared, tokenizer, transform, tmp_path):
        [file] = prepared.glob("nlvr2_train-*.arrow")
        for split in ("nlvr2_a", "nlvr2_b"):
            shutil.copy(file, tmp_path / f"{split}.arrow")
        dataset = NLVR2Reader(tmp_path, ["nlvr2_a", "nlvr2_b"], tokenizer, transform)
        sentences = [dataset[i]["sentence"] for i in range(10)]
        assert {*sentences[:5]}.isdisjoint(sentences[5:])
        assert len({*sentences}) == 6

    def test_shuffled_images_are_another_pair_s(self, prepared, tokenizer, transform):
        true = NLVR2Reader(prepared, ["nlvr2_train"], tokenizer, transform)
        shuffled = NLVR2Reader(prepared, ["nlvr2_train"], tokenizer, transform, images="shuffled")
        pair_of = {true[i][f"image_{s}"].numpy().tobytes(): (true[i]["pair"], s) for i in range(5) for s in range(2)}
        for i in range(5):
            e = shuffled[i]
            seen = [pair_of[e[f"image_{side}"].numpy().tobytes()] for side in range(2)]
            assert seen[0][0] == seen[1][0] != e["pair"] == true[i]["pair"]
            assert [side for _, side in seen] == [0, 1]

    def test_corrupt_image(self, prepared, tmp_path, tokenizer, transform):
        rows = open_table(prepared / "nlvr2_train-00000-of-00001.arrow", SCHEMA.names).to_pylist()
        rows[1]["image_1"] = rows[1]["image_1"][:300]
        write_table(tmp_path / "nlvr2_train.arrow", SCHEMA, [pa.RecordBatch.from_pylist(rows, SCHEMA)])
        dataset = NLVR2Reader(tmp_path, ["nlvr2_train"], tokenizer, transform)
        bad = [dataset[i]["bad"] for i in range(5) if "bad" in dataset[i]]
        assert len(bad) == 2
        where = f"{tmp_path / 'nlvr2_train.arrow'} row 1 identifier {rows[1]['identifier']} image_1: "
        assert all(message.startswith(where) for message in bad)

    def test_answers_that_are_no_truth_values(self, prepared, tmp_path, tokenizer, transform):
        rows = open_table(prepared / "nlvr2_dev-00000-of-00001.arrow", SCHEMA.names).to_pylist()
        rows[0]["answers"] = ["maybe"]
        write_table(tmp_path / "nlvr2_dev.arrow", SCHEMA, [pa.RecordBatch.from_pylist(rows, SCHEMA)])
        with pytest.raises(UserError, match=r"nlvr2_dev.* lack an answer True or False"):
            NLVR2Reader(tmp_path, ["nlvr2_dev"], tokenizer, transform)

    def test_pickles_for_workers(self, prepared, tokenizer, transform):
        transform.randaugment = "released-m9-n2"
        dataset = NLVR2Reader(prepared, ["nlvr2_train"], tokenizer, transform)
        copy = pickle.loads(pickle.dumps(dataset))
        assert copy._opened == []
        one, other = dataset[3, 17], copy[3, 17]
        assert np.array_equal(one.pop("image_0"), other.pop("image_0"))
        assert torch.equal(one.pop("image_1"), other.pop("image_1"))
        assert one == other
