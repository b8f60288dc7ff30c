import json
import pickle
import shutil

import pyarrow as pa
import pytest
import torch
from PIL import Image

from vltune.data.arrow import open_table, write_table
from vltune.data.snli_ve.prepare import LABELS, SCHEMA, prepare
from vltune.data.snli_ve.reader import SNLIVEReader
from vltune.errors import BadExampleError, UserError

# split -> (image, hypothesis, label)
LINES = {
    "train": [
        ("11", " a red circle\n", "entailment"),
        ("12", "a blue circle", "neutral"),
        ("11", "a green square", "contradiction"),
        ("13", "a large square", "-"),
        ("12", "two circles", "entailment"),
    ],
    "dev": [("21", "one circle", "neutral"), ("21", "no circle", "-"), ("22", "a circle", "entailment")],
    "test": [("31", "a small square", "contradiction")],
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory, paint):
    folder = tmp_path_factory.mktemp("snli_ve")
    for split, lines in LINES.items():
        entries = [
            {
                "Flickr30K_ID": image,
                "gold_label": label,
                "pairID": f"{image}.jpg#{number}",
                "sentence1": f"premise {number}",
                "sentence2": text,
            }
            for number, (image, text, label) in enumerate(lines)
        ]
        (folder / f"snli_ve_{split}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        for image, *_ in lines:
            paint(folder / "flickr30k-images" / f"{image}.jpg", int(image), (50 + int(image), 60))
    return folder


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(raw, folder, progress=False)
    return folder


@pytest.fixture
def raw_copy(raw, tmp_path):
    return shutil.copytree(raw, tmp_path / "raw")


class TestPrepare:
    def test_rows(self, raw, prepared):
        table = open_table(prepared / "snli_train-00000-of-00001.arrow", SCHEMA.names)
        assert table.schema.equals(SCHEMA)
        images = raw / "flickr30k-images"
        assert table.to_pylist() == [
            {
                "image": (images / "11.jpg").read_bytes(),
                "sentences": [["premise 0", " a red circle\n"], ["premise 2", "a green square"]],
                "labels": [2, 0],
            },
            {
                "image": (images / "12.jpg").read_bytes(),
                "sentences": [["premise 1", "a blue circle"], ["premise 4", "two circles"]],
                "labels": [1, 2],
            },
        ]

    def test_undecided_sentences_are_dropped_and_counted(self, raw, prepared, tmp_path):
        counts = prepare(raw, tmp_path, progress=False)
        assert (counts["train sentences"], counts["train dropped sentences"], counts["train images"]) == (4, 1, 2)
        assert (counts["dev sentences"], counts["dev dropped sentences"], counts["test dropped sentences"]) == (2, 1, 0)
        manifest = json.loads((prepared / "manifest.json").read_text())
        assert manifest["dropped_sentences"] == {"train": 1, "dev": 1, "test": 0}
        assert sorted(manifest["sources"]) == [f"snli_ve_{split}.jsonl" for split in ("dev", "test", "train")]

    def test_images_where_meter_has_them(self, raw_copy, prepared, tmp_path):
        (raw_copy / "Flickr30K").mkdir()
        (raw_copy / "flickr30k-images").rename(raw_copy / "Flickr30K" / "images")
        prepare(raw_copy, tmp_path / "out", progress=False)
        file = "snli_dev-00000-of-00001.arrow"
        assert (tmp_path / "out" / file).read_bytes() == (prepared / file).read_bytes()

    def test_missing_files_are_all_named(self, raw_copy, tmp_path):
        (raw_copy / "snli_ve_dev.jsonl").unlink()
        shutil.rmtree(raw_copy / "flickr30k-images")
        with pytest.raises(UserError, match=r"raw: lacks snli_ve_dev\.jsonl, flickr30k-images/; unpack"):
            prepare(raw_copy, tmp_path / "out")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"gold_label": "neu', "breaks off"),
            ('{"gold_label": "neutral", "sentence2": "a"}', "lacks 'sentence1'"),
            ('{"gold_label": "maybe"}', 'gold_label is "maybe", none of contradiction, neutral, entailment, -'),
        ],
    )
    def test_broken_lines(self, raw_copy, tmp_path, line, message):
        (raw_copy / "snli_ve_test.jsonl").write_text(line + "\n")
        with pytest.raises(
            UserError, match=rf"snli_ve_test\.jsonl line 1 \(not an official SNLI-VE entry: .*({message})"
        ):
            prepare(raw_copy, tmp_path / "out", progress=False)

    def test_bad_images(self, raw_copy, tmp_path):
        (raw_copy / "flickr30k-images" / "12.jpg").write_bytes(b"")
        with pytest.raises(
            BadExampleError, match=r"1 bad image or entry .*: flickr30k-images/12\.jpg \(an empty file\)"
        ):
            prepare(raw_copy, tmp_path / "out", progress=False)
        assert not (tmp_path / "out").exists()
        counts = prepare(raw_copy, tmp_path / "out", max_bad=1, progress=False)
        assert (counts["train images"], counts["train sentences"], counts["unreadable images"]) == (1, 2, 1)


class TestReading:
    def test_raw_to_examples(self, raw, prepared, tokenizer, transform):
        dataset = SNLIVEReader(prepared, ["snli_dev", "snli_train"], tokenizer, transform)
        given = [(image, text.strip(), label) for split in ("dev", "train") for image, text, label in LINES[split]]
        found = [dataset[i] for i in range(len(dataset))]
        assert [e["id"] for e in found] == list(range(6))
        for e, place in zip(found, (0, 2, 3, 5, 4, 7), strict=True):
            image, text, label = given[place]
            assert (e["text_ids"], LABELS[e["label"]]) == (tokenizer(text), label)
            assert torch.equal(e["image"], transform(Image.open(raw / "flickr30k-images" / f"{image}.jpg")))
        assert LABELS == ("contradiction", "neutral", "entailment")  # METER's 0, 1, 2

    def test_shuffled_images(self, prepared, tokenizer, transform):
        true, shuffled = (
            SNLIVEReader(prepared, ["snli_train"], tokenizer, transform, images=images)
            for images in ("true", "shuffled")
        )
        for i in range(4):
            assert shuffled[i]["label"] == true[i]["label"]
            assert torch.equal(shuffled[i]["image"], true[(i + 2) % 4]["image"])

    def test_labels_must_be_three(self, prepared, tmp_path, tokenizer, transform):
        rows = open_table(prepared / "snli_dev-00000-of-00001.arrow", SCHEMA.names).to_pylist()
        for labels in ([3], [0, 1]):
            rows[0]["labels"] = labels
            write_table(tmp_path / "snli_dev.arrow", SCHEMA, [pa.RecordBatch.from_pylist(rows, SCHEMA)])
            with pytest.raises(UserError, match=r"snli_dev.* lack a label 0, 1 or 2 for every sentence"):
                SNLIVEReader(tmp_path, ["snli_dev"], tokenizer, transform)

    def test_pickles_for_workers(self, prepared, tokenizer, transform):
        dataset = SNLIVEReader(prepared, ["snli_train"], tokenizer, transform)
        dataset[0]
        copy = pickle.loads(pickle.dumps(dataset))
        assert copy._opened == []
        assert torch.equal(copy[3]["image"], dataset[3]["image"])
