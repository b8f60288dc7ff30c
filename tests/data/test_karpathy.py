import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from vltune.data.arrow import open_table
from vltune.data.collate import Collate
from vltune.data.dataset import open_examples
from vltune.data.karpathy.prepare import SCHEMA, prepare_coco, prepare_f30k, problems
from vltune.data.karpathy.reader import Karpathy
from vltune.errors import BadExampleError, UserError

COLOURS = ("red", "blue", "green", "yellow", "black")
# As many captions as the image's number, but none for no image.
F30K = [(f"{1000 + n}.jpg", split, n) for n, split in enumerate(["train", "val", "train", "test", "train"], 1)]
COCO = [("train2014", 1, "train"), ("val2014", 2, "restval"), ("val2014", 3, "val"), ("val2014", 4, "test")]


def captions(number, count):
    return [f"{number} {colour} circles" for colour in COLOURS[:count]]


def sentences(texts):
    return [{"raw": text, "tokens": text.split(), "sentid": n} for n, text in enumerate(texts)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory, paint):
    folder = tmp_path_factory.mktemp("raw")
    entries = []
    for name, split, count in F30K:
        paint(folder / "flickr30k-images" / name, int(name[:4]), (60 + 10 * count, 50))
        entries.append({"filename": name, "split": split, "sentences": sentences(captions(count, count))})
    paint(folder / "flickr30k-images" / "7.jpg", 7, (40, 40))  # not captioned
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": entries, "dataset": "flickr30k"}))
    entries = []
    for place, number, split in COCO:
        name = f"COCO_{place}_{number:012d}.jpg"
        paint(folder / place / name, number, (50, 40))
        texts = sentences(captions(number, 5))
        entries.append({"filepath": place, "filename": name, "split": split, "sentences": texts, "cocoid": number})
    (folder / "karpathy").mkdir()
    (folder / "karpathy" / "dataset_coco.json").write_text(json.dumps({"images": entries, "dataset": "coco"}))
    return folder


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare_f30k(raw, folder, progress=False)
    return folder


@pytest.fixture
def dataset(prepared, tokenizer, transform):
    stems = ["f30k_caption_karpathy_train", "f30k_caption_karpathy_test"]
    return Karpathy(prepared, stems, tokenizer, transform, false_captions=6)


class TestPrepare:
    def test_f30k(self, raw, prepared, tmp_path):
        for split in ("train", "val", "test"):
            table = open_table(prepared / f"f30k_caption_karpathy_{split}-00000-of-00001.arrow", SCHEMA.names)
            assert table.schema.equals(SCHEMA)
            assert table.to_pylist() == [
                {
                    "image": (raw / "flickr30k-images" / name).read_bytes(),
                    "caption": captions(count, count),
                    "image_id": name,
                    "split": split,
                }
                for name, of, count in F30K
                if of == split
            ]
        counts = prepare_f30k(raw, tmp_path, progress=False)
        assert (counts["train images"], counts["train captions"], counts["test captions"]) == (3, 9, 4)
        assert {path.name for path in tmp_path.iterdir()} == {path.name for path in prepared.iterdir()}

    def test_coco(self, raw, tmp_path):
        counts = prepare_coco(raw, tmp_path, progress=False)
        for place, number, split in COCO:
            [row] = open_table(
                tmp_path / f"coco_caption_karpathy_{split}-00000-of-00001.arrow", SCHEMA.names
            ).to_pylist()
            assert row["image"] == (raw / place / row["image_id"]).read_bytes()
            assert row["caption"] == captions(number, 5)
            assert counts[f"{split} captions"] == 5

    def test_a_caption_of_which_nothing_is_seen_is_none(self, raw, tmp_path):
        folder = shutil.copytree(raw, tmp_path / "raw")
        content = json.loads((folder / "dataset_flickr30k.json").read_text())
        content["images"][4]["sentences"] += sentences(["\u200b", "\ufeff \u2060", "\u200bred"])
        (folder / "dataset_flickr30k.json").write_text(json.dumps(content))
        counts = prepare_f30k(folder, tmp_path / "out", progress=False)
        assert (counts["train captions"], counts["train dropped captions"]) == (1 + 3 + 5 + 1, 2)
        assert not [*problems({"caption": ["\u200bred"]}, ())]
        assert [*problems({"caption": ["\u200b"]}, ())] == ["an empty caption"]

    def test_missing_files_are_all_named(self, tmp_path):
        (tmp_path / "raw" / "val2014").mkdir(parents=True)
        with pytest.raises(UserError, match=r"raw: lacks dataset_coco\.json, train2014/; unpack caption_datasets"):
            prepare_coco(tmp_path / "raw", tmp_path / "out")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ('{"images": [{"filena', "not an official Karpathy file with a list of 'images'"),
            ('{"annotations": []}', "not an official Karpathy file with a list of 'images'"),
            ('{"images": [{"filename": "1.jpg", "split": "train"}]}', "entry 1 .*lacks 'sentences'"),
            ('{"images": [{"filename": "1.jpg", "split": "restval"}]}', 'entry 1 .*split is "restval", none of train'),
            ('{"images": ["1.jpg"]}', "entry 1 .not an official Karpathy entry"),
        ],
    )
    def test_not_karpathy_s(self, tmp_path, content, message):
        (tmp_path / "flickr30k-images").mkdir()
        (tmp_path / "dataset_flickr30k.json").write_text(content)
        with pytest.raises(UserError, match=rf"dataset_flickr30k\.json:? {message}") as error:
            prepare_f30k(tmp_path, tmp_path / "out")
        assert "\n" not in str(error.value)

    def test_bad_images(self, raw, tmp_path):
        copy = shutil.copytree(raw, tmp_path / "raw")
        shutil.rmtree(copy / "flickr30k-images")
        (copy / "flickr30k-images").mkdir()
        with pytest.raises(
            BadExampleError, match=r"5 bad images or entries where --max-bad is 4: flickr30k-images/1001\.jpg \(m"
        ):
            prepare_f30k(copy, tmp_path / "out", max_bad=4, progress=False)
        assert not (tmp_path / "out").exists()


class TestTraining:
    def test_examples(self, raw, dataset, tokenizer, transform):
        expected = [
            (name, caption)
            for split in ("train", "test")
            for name, of, count in F30K
            if of == split
            for caption in captions(count, count)
        ]
        assert len(dataset) == len(expected) == 13
        for i, (name, caption) in enumerate(expected):
            e = dataset[i]
            pixels = transform(Image.open(raw / "flickr30k-images" / name).convert("RGB"))
            assert torch.equal(e["image"], pixels)
            assert (e["id"], e["text_ids"], e["image_index"]) == (
                i,
                tokenizer(caption),
                [1, 3, 5, 4].index(int(name[3])),
            )

    def test_false_captions_are_of_all_other_images_and_of_no_other(self, dataset):
        ids = [tuple(dataset.token_ids(i)) for i in range(13)]
        for i in range(13):
            own = {ids[j] for j in range(13) if dataset.owner[j] == dataset.owner[i]}
            drawn = [dataset[i, seed]["false_text_ids"] for seed in range(40)]
            assert all(len(found) == 6 for found in drawn)
            assert {tuple(text) for found in drawn for text in found} == set(ids) - own

    def test_draws_follow_from_the_seed_alone(self, dataset, prepared, tokenizer, transform):
        first = [dataset[2, seed]["false_text_ids"] for seed in (0, 1, 2**40)]
        copy = pickle.loads(pickle.dumps(dataset))
        assert [copy[2, seed]["false_text_ids"] for seed in (0, 1, 2**40)] == first
        assert first[0] != first[1] != first[2]
        assert dataset[2]["false_text_ids"] == copy[2]["false_text_ids"]
        assert dataset[2]["false_text_ids"] != dataset[3]["false_text_ids"]

    def test_batch(self, dataset, tokenizer, transform):
        examples = [dataset[i] for i in (0, 4, 12)]
        batch = Collate(tokenizer.pad_id, transform.mean, transform.std)(examples)
        assert batch["image_index"] == [0, 2, 3]
        assert batch["false_text_ids"].shape == batch["false_text_mask"].shape
        flat = [text for e in examples for text in e["false_text_ids"]]
        assert [
            ids[mask].tolist() for ids, mask in zip(batch["false_text_ids"], batch["false_text_mask"], strict=True)
        ] == flat

    def test_shuffled_images(self, dataset, prepared, tokenizer, transform):
        shuffled = Karpathy(prepared, dataset.splits, tokenizer, transform, images="shuffled")
        for i in range(13):
            assert shuffled[i]["text_ids"] == dataset[i]["text_ids"]
            assert shuffled[i]["image_index"] == dataset[i]["image_index"]
            assert not torch.equal(shuffled[i]["image"], dataset[i]["image"])
        assert torch.equal(shuffled.images[1]["image"], shuffled[1]["image"])

    def test_one_image_is_not_enough(self, prepared, tokenizer, transform):
        with pytest.raises(UserError, match=r"f30k_caption_karpathy_val.* captions of fewer than two images"):
            Karpathy(prepared, ["f30k_caption_karpathy_val"], tokenizer, transform)


class TestEvaluation:
    def test_images_captions_and_owners(self, dataset, tokenizer, transform):
        assert (len(dataset.images), len(dataset.captions)) == (4, 13)
        assert dataset.owner.dtype == np.int64
        assert dataset.owner.tolist() == [0] + [1] * 3 + [2] * 5 + [3] * 4
        for number in range(13):
            assert dataset.captions[number] == {"id": number, "text_ids": dataset[number]["text_ids"]}
            image = dataset.images[dataset.owner[number]]
            assert image.keys() == {"id", "image"}
            assert torch.equal(image["image"], dataset[number]["image"])
        collate = Collate(tokenizer.pad_id, transform.mean, transform.std)
        images, texts = (collate([part[i] for i in range(3)]) for part in (dataset.images, dataset.captions))
        assert images.keys() == {"ids", "bad", "image", "image_size"}
        assert texts.keys() == {"ids", "bad", "text_ids", "text_mask"}

    def test_of_a_subset_its_own_captions_and_images(self, prepared, tmp_path, tokenizer, transform):
        folder = shutil.copytree(prepared, tmp_path / "subset")
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["subsets"] = {"some": {"of": "f30k_caption_karpathy_train", "texts": [2, 3, 6, 8]}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        whole = Karpathy(folder, ["f30k_caption_karpathy_train"], tokenizer, transform)
        some = Karpathy(folder, ["some"], tokenizer, transform)
        told = [whole[place]["text_ids"] for place in (2, 3, 6, 8)]
        assert [some.token_ids(number) for number in range(4)] == told
        assert [caption["text_ids"] for caption in some.captions] == told
        assert some.owner.tolist() == [0, 0, 1, 1]
        examples = open_examples("karpathy", folder, ["some", "f30k_caption_karpathy_test"])
        both = Karpathy(folder, ["some", "f30k_caption_karpathy_test"], tokenizer, transform)
        for caption, image in enumerate(both.owner.tolist()):
            asked = examples.asked(caption, "image 0")
            assert asked.answers == {f"image {image}": 1.0}
            assert tokenizer(asked.shown.text) == both.token_ids(caption)
            assert examples.said(f"caption {caption}") == asked.shown
            assert examples.said(f"image {image}").images == (bytes(both.content(image)),)
        assert examples.asked(1, "caption 0").answers == {"caption 2": 1.0, "caption 3": 1.0}
        for beyond in (f"caption {len(both)}", "image 3", "image -1"):
            with pytest.raises(KeyError):
                examples.said(beyond)

    def test_captions_and_sizes_need_no_decoding(self, dataset, monkeypatch):
        sizes = [tuple(dataset.images[number]["image"].shape[1:]) for number in range(4)]
        monkeypatch.setattr(Image.Image, "convert", None)
        assert [dataset.size(number) for number in range(4)] == sizes
        assert len(set(sizes)) > 1
        assert [dataset.captions[i]["id"] for i in range(13)] == list(range(13))

    def test_corrupt_image(self, dataset, monkeypatch):
        def broken(picture, which=0):
            return b"\xff\xd8\xff\xe0"

        monkeypatch.setattr(dataset, "content", broken)
        found = dataset.images[3]["bad"]
        assert found == f"{dataset._paths[1]} row 0 image_id 1004.jpg: a JPEG image with a broken header"
