import json
import pickle
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from vltune.data.arrow import open_table, write_table
from vltune.data.collate import Collate
from vltune.data.vqav2.prepare import SCHEMA, prepare
from vltune.data.vqav2.reader import VQAv2
from vltune.errors import BadExampleError, UserError


def load(raw, name, key):
    return json.loads((raw / name).read_text())[key]


def official(raw, split="train2014"):
    """question_id -> (image_id, question, the ten answers), read independently of `prepare`."""
    questions = load(raw, f"v2_OpenEnded_mscoco_{split}_questions.json", "questions")
    annotations = load(raw, f"v2_mscoco_{split}_annotations.json", "annotations")
    tens = {a["question_id"]: [human["answer"] for human in a["answers"]] for a in annotations}
    return {q["question_id"]: (q["image_id"], q["question"], tens[q["question_id"]]) for q in questions}


def edit(path, key, change):
    content = json.loads(path.read_text())
    change(content[key])
    path.write_text(json.dumps(content))


@pytest.fixture
def raw_copy(raw, tmp_path):
    return shutil.copytree(raw, tmp_path / "raw")


class TestPrepare:
    def test_rows(self, raw, prepared):
        answers = json.loads((prepared / "manifest.json").read_text())["answers"]
        expected = official(raw)
        table = open_table(prepared / "vqav2_train-00000-of-00001.arrow", SCHEMA.names)
        assert table.schema.equals(SCHEMA)
        assert len(table) == 60
        seen = set()
        for row in table.to_pylist():
            path = raw / "train2014" / f"COCO_train2014_{row['image_id']:012d}.jpg"
            assert row["image"] == path.read_bytes()
            assert row["split"] == "train"
            columns = ("question_id", "questions", "answers", "answer_labels", "answer_scores")
            for question_id, text, *given in zip(*(row[name] for name in columns), strict=True):
                image_id, question, ten = expected[question_id]
                seen.add(question_id)
                assert (row["image_id"], text) == (image_id, question)
                scores = {a: min(1, round(0.3 * n, 1)) for a, n in Counter(ten).items() if a in answers}
                assert dict(zip(given[0], given[2], strict=True)) == scores
                assert [answers[label] for label in given[1]] == given[0]
        assert seen == expected.keys()

    def test_manifest(self, raw, prepared):
        manifest = json.loads((prepared / "manifest.json").read_text())
        assert manifest["images"] == {"train": 60, "val": 20, "test": 30, "test-dev": 15}
        assert manifest["questions"] == {"train": 240, "val": 80, "test": 120, "test-dev": 60}
        assert manifest["columns"] == SCHEMA.names
        assert sorted(manifest["sources"]) == sorted(path.name for path in raw.glob("*.json"))
        assert all(len(digest) == 64 for digest in manifest["sources"].values())
        assert sorted(p.name for p in prepared.glob("[!.]*")) == [
            "manifest.json",
            *(f"vqav2_{split}-00000-of-00001.arrow" for split in ("test", "test-dev", "train", "val")),
        ]

    def test_vocabulary_is_normalised_counted_and_ordered(self, raw_copy, tmp_path):
        def rename(annotations):
            for annotation in annotations:
                annotation["multiple_choice_answer"] = "The Rare one"
            for annotation, answer in zip(annotations, ["Two!"] * 3 + ["a cat"] * 2, strict=False):
                annotation["multiple_choice_answer"] = answer

        for split in ("train2014", "val2014"):
            edit(raw_copy / f"v2_mscoco_{split}_annotations.json", "annotations", rename)
        prepare(raw_copy, tmp_path / "out", min_answer_count=5, progress=False)
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["answers"] == ["2", "rare 1"]  # "cat": 4 times

    def test_another_vocabulary_is_another_preparation(self, raw, tmp_path):
        sizes = []
        for least in (1, 9, 1):
            prepare(raw, tmp_path, min_answer_count=least, progress=False)
            sizes.append(len(json.loads((tmp_path / "manifest.json").read_text())["answers"]))
        assert sizes[0] == sizes[2] > sizes[1]

    def test_unanswerable_questions_and_images_are_dropped_and_counted(self, raw_copy, tmp_path):
        first = min(image_id for image_id, *_ in official(raw_copy).values())

        def mumble(annotations):
            for annotation in annotations:
                if annotation["image_id"] == first or annotation["question_id"] == 1000 * first + 1000:
                    annotation["answers"] = [human | {"answer": "hm"} for human in annotation["answers"]]

        edit(raw_copy / "v2_mscoco_train2014_annotations.json", "annotations", mumble)
        counts = prepare(raw_copy, tmp_path / "out", min_answer_count=1, progress=False)
        assert counts["train dropped questions"] == 5
        assert counts["train dropped images"] == 1
        assert (counts["train images"], counts["train questions"]) == (59, 235)
        assert len(open_table(tmp_path / "out" / "vqav2_train-00000-of-00001.arrow", ["image_id"])) == 59

    def test_official_test_has_no_answers(self, raw_copy, tmp_path, tokenizer, transform):
        (raw_copy / "v2_mscoco_test2015_annotations.json").unlink()
        prepare(raw_copy, tmp_path / "out", min_answer_count=1, progress=False)
        rows = open_table(tmp_path / "out" / "vqav2_test-00000-of-00001.arrow", SCHEMA.names).to_pylist()
        assert [row["answer_labels"] for row in rows] == [[]] * 30
        dataset = VQAv2(tmp_path / "out", ["vqav2_val", "vqav2_test"], tokenizer, transform)
        assert len(dataset) == 80 + 120
        assert dataset[79]["answer_labels"]
        assert (dataset[80]["answer_labels"], dataset[80]["answer_scores"]) == ([], [])

    def test_last_thousand_val_images_are_kept_apart(self, raw_copy, tmp_path):
        def repeated(entries):
            last = max(entry["image_id"] for entry in entries)
            some = [entry for entry in entries if entry["image_id"] == last]
            for image_id in range(last + 10**4, last + 10**4 + 1003 - 20):
                shutil.copy(image(raw_copy, "val2014", last), image(raw_copy, "val2014", image_id))
                entries += [entry | {"image_id": image_id, "question_id": 1000 * image_id} for entry in some[:1]]

        for name, key in (
            ("OpenEnded_mscoco_val2014_questions", "questions"),
            ("mscoco_val2014_annotations", "annotations"),
        ):
            edit(raw_copy / f"v2_{name}.json", key, repeated)
        prepare(raw_copy, tmp_path / "out", min_answer_count=1, progress=False)
        splits = json.loads((tmp_path / "out" / "manifest.json").read_text())["splits"]
        assert splits["vqav2_val"] == splits["vqav2_trainable_val"] + splits["vqav2_rest_val"]
        files = [tmp_path / "out" / shard["file"] for shard in splits["vqav2_val"]]
        tables = [open_table(file, ["image_id"]) for file in files]
        assert [len(table) for table in tables] == [3, 1000]
        ids = pa.concat_tables(tables)["image_id"].to_pylist()
        assert ids == sorted(set(ids))


def image(raw, folder, image_id):
    return raw / folder / f"COCO_{folder}_{image_id:012d}.jpg"


class TestPrepareErrors:
    def test_missing_files_are_all_named(self, raw_copy, tmp_path):
        (raw_copy / "v2_mscoco_val2014_annotations.json").unlink()
        (raw_copy / "v2_OpenEnded_mscoco_test-dev2015_questions.json").unlink()
        shutil.rmtree(raw_copy / "train2014")
        with pytest.raises(UserError, match=r"lacks .*test-dev2015_questions.*val2014_annotations.*train2014/"):
            prepare(raw_copy, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_not_json(self, raw_copy, tmp_path):
        (raw_copy / "v2_mscoco_val2014_annotations.json").write_text('{"annotations": [{"answ')
        with pytest.raises(UserError, match=r"val2014_annotations\.json: not an official VQAv2 file"):
            prepare(raw_copy, tmp_path / "out")

    def test_question_without_annotation(self, raw_copy, tmp_path):
        edit(raw_copy / "v2_mscoco_train2014_annotations.json", "annotations", lambda entries: entries.pop())
        with pytest.raises(
            UserError, match=r"train2014_questions\.json entry 240 \(.*: question 60003 has no annotation\)"
        ):
            prepare(raw_copy, tmp_path / "out", min_answer_count=1)

    def test_a_bad_annotation_is_counted_once_with_its_question(self, raw_copy, tmp_path):
        edit(
            raw_copy / "v2_mscoco_train2014_annotations.json", "annotations", lambda entries: entries[5].pop("answers")
        )
        with pytest.raises(
            BadExampleError, match=r"1 bad .*: v2_mscoco_train2014_annotations\.json entry 6 \(.*'answers'"
        ):
            prepare(raw_copy, tmp_path / "out", min_answer_count=1)
        counts = prepare(raw_copy, tmp_path / "out", min_answer_count=1, max_bad=1, progress=False)
        assert (counts["bad entries"], counts["train questions"], counts["train dropped questions"]) == (1, 239, 0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"question_id": "7"}, 'its question_id is "7", expected a whole number'),
            ({"image_id": None}, "its image_id is null, expected a whole number"),
            ({"question": ["why"]}, "its question is a list, expected text"),
        ],
    )
    def test_bad_questions(self, raw_copy, tmp_path, change, message):
        file = "v2_OpenEnded_mscoco_val2014_questions.json"
        edit(raw_copy / file, "questions", lambda entries: entries[2].update(change))
        with pytest.raises(BadExampleError, match=rf"1 bad image or entry .*{file} entry 3 .*: {message}"):
            prepare(raw_copy, tmp_path / "out", min_answer_count=1, progress=False)

    def test_bad_images(self, raw_copy, tmp_path):
        missing, corrupt = image(raw_copy, "train2014", 7), image(raw_copy, "val2014", 65)
        missing.unlink()
        corrupt.write_bytes(b"<html>404</html>")
        with pytest.raises(
            BadExampleError, match=r"1 bad image or entry where --max-bad is 0: train2014/.*07.jpg \(missing\)"
        ):
            prepare(raw_copy, tmp_path / "out", min_answer_count=1, progress=False)
        with pytest.raises(
            BadExampleError, match=r"2 bad images .* is 1: .*065.jpg \(a web page, not the file itself\)"
        ):
            prepare(raw_copy, tmp_path / "out", min_answer_count=1, max_bad=1, progress=False)
        assert not (tmp_path / "out").exists()

        counts = prepare(raw_copy, tmp_path / "out", min_answer_count=1, max_bad=2, progress=False)
        assert counts["unreadable images"] == 2
        assert (counts["train images"], counts["train questions"]) == (59, 236)
        assert (counts["val images"], counts["val questions"]) == (19, 76)
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["bad_images"] == {
            f"train2014/{missing.name}": "missing",
            f"val2014/{corrupt.name}": "a web page, not the file itself",
        }


class TestReading:
    def test_raw_to_batch(self, raw, prepared, tokenizer, transform):
        dataset = VQAv2(prepared, ["vqav2_val", "vqav2_train"], tokenizer, transform)
        expected = official(raw, "val2014") | official(raw)
        assert len(dataset) == 320
        assert [dataset[i]["id"] for i in range(320)] == list(expected)
        for index in (0, 79, 80, 319):
            found = dataset[index]
            image_id, question, ten = expected[found["id"]]
            assert found["text_ids"] == tokenizer(question)
            folder = "val2014" if index < 80 else "train2014"
            pixels = np.asarray(Image.open(image(raw, folder, image_id)))
            assert np.array_equal(found["image"].permute(1, 2, 0), pixels)
            assert found["image"].dtype == torch.uint8
            best = dataset.answers[found["answer_labels"][int(np.argmax(found["answer_scores"]))]]
            assert best == Counter(ten).most_common(1)[0][0]
        loader = torch.utils.data.DataLoader(
            dataset, 32, num_workers=1, collate_fn=Collate(tokenizer.pad_id, transform.mean, transform.std)
        )
        batch = next(iter(loader))
        assert batch["ids"] == list(expected)[:32]
        torch.testing.assert_close(batch["image"][31], dataset[31]["image"] / 127.5 - 1)

    def test_soft_targets_occur(self, prepared, tokenizer, transform):
        dataset = VQAv2(prepared, ["vqav2_train"], tokenizer, transform)
        scores = Counter(score for i in range(len(dataset)) for score in dataset[i]["answer_scores"])
        assert scores.keys() == {0.3, 0.6, 0.9, 1.0}
        assert scores[1.0] == 240

    def test_nothing_is_decoded_twice(self, prepared, tokenizer, transform, monkeypatch):
        dataset = VQAv2(prepared, ["vqav2_train"], tokenizer, transform)
        first = [dataset[i] for i in range(8)]
        monkeypatch.setattr("vltune.data.reader.open_mapped", None)
        monkeypatch.setattr(dataset, "_opened", None)
        again = [dataset[i] for i in range(8)]
        assert all(
            a["image"] is b["image"] and a["text_ids"] == b["text_ids"] for a, b in zip(first, again, strict=True)
        )

    def test_image_cache_is_bounded(self, prepared, tokenizer, transform):
        dataset = VQAv2(prepared, ["vqav2_train"], tokenizer, transform, image_cache_bytes=2 * 3 * 64 * 64)
        assert dataset[0]["image"] is dataset[0]["image"]
        assert dataset[4]["image"] is dataset[4]["image"]
        assert dataset[8]["image"] is not dataset[8]["image"]

    def test_texts_of_a_picture_that_follow_each_other_decode_it_once(
        self, prepared, tokenizer, transform, monkeypatch
    ):
        dataset = VQAv2(prepared, ["vqav2_train"], tokenizer, transform, image_cache_bytes=0)
        expected, read, opened = [dataset[i]["image"] for i in range(len(dataset))], transform.read, []
        monkeypatch.setattr(transform, "read", lambda *given: opened.append(1) or read(*given))
        again = [dataset[i]["image"] for i in range(len(dataset))]
        assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))
        assert len(opened) == dataset.pictures() < len(dataset)

    def test_augmentation_seed(self, prepared, tokenizer, transform):
        transform.randaugment = "released-m9-n2"
        dataset = VQAv2(prepared, ["vqav2_train"], tokenizer, transform)
        seen = [dataset[0, seed]["image"].numpy().tobytes() for seed in (0, 1, 2, 3, 0, 1, 2, 3)]
        assert seen[:4] == seen[4:]
        assert len(set(seen)) > 1
        assert dataset[0]["image"] is dataset[0]["image"]

    def test_shuffled_images(self, prepared, tokenizer, transform):
        true = VQAv2(prepared, ["vqav2_train"], tokenizer, transform)
        shuffled = VQAv2(prepared, ["vqav2_train"], tokenizer, transform, images="shuffled")
        again = VQAv2(prepared, ["vqav2_train"], tokenizer, transform, images="shuffled")
        other = VQAv2(prepared, ["vqav2_train"], tokenizer, transform, images="shuffled", seed=1)
        row_of = {true[i]["image"].numpy().tobytes(): i // 4 for i in range(len(true))}
        rows = [row_of[shuffled[i]["image"].numpy().tobytes()] for i in range(0, len(true), 4)]
        assert sorted(rows) == list(range(60))
        assert all(row != place for place, row in enumerate(rows))
        assert rows == [row_of[again[i]["image"].numpy().tobytes()] for i in range(0, len(true), 4)]
        assert rows != [row_of[other[i]["image"].numpy().tobytes()] for i in range(0, len(true), 4)]
        assert all(shuffled[i]["text_ids"] == true[i]["text_ids"] for i in range(len(true)))

    def test_corrupt_image(self, prepared, tmp_path, tokenizer, transform):
        rows = open_table(prepared / "vqav2_val-00000-of-00001.arrow", SCHEMA.names).to_pylist()
        rows[2]["image"] = rows[2]["image"][:300]
        batch = pa.RecordBatch.from_pylist(rows, SCHEMA)
        write_table(tmp_path / "vqav2_val.arrow", SCHEMA, [batch])
        dataset = VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform)
        bad = dataset[9]["bad"]
        assert bad.startswith(f"{tmp_path / 'vqav2_val.arrow'} row 2 image_id 63: ")
        assert "truncated" in bad.lower()
        batch = Collate(0, transform.mean, transform.std)([dataset[i] for i in range(6, 14)])
        assert batch["bad"] == [dataset[i]["bad"] for i in range(8, 12)]
        assert batch["ids"] == [dataset[i]["id"] for i in (6, 7, 12, 13)]

    def test_folder_without_manifest(self, prepared, tmp_path, tokenizer, transform):
        table = open_table(prepared / "vqav2_val-00000-of-00001.arrow", SCHEMA.names)
        write_table(tmp_path / "vqav2_val.arrow", table.schema, table.to_batches())
        dataset = VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform)
        assert dataset.answers is None
        fingerprint = dataset.fingerprint
        write_table(tmp_path / "vqav2_val.arrow", table.schema, table[:-1].to_batches())
        assert VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform).fingerprint != fingerprint

    def test_test_file_as_vilt_writes_it(self, prepared, tmp_path, tokenizer, transform):
        table = open_table(prepared / "vqav2_test-00000-of-00001.arrow", SCHEMA.names)
        for name in ("answers", "answer_labels", "answer_scores"):  # pandas sees only empty lists: list<null>
            nothing = pa.array([[]] * len(table), pa.list_(pa.null()))
            table = table.set_column(table.column_names.index(name), name, nothing)
        write_table(tmp_path / "vqav2_test.arrow", table.schema, table.to_batches())
        dataset = VQAv2(tmp_path, ["vqav2_test"], tokenizer, transform)
        assert (len(dataset), dataset[5]["answer_labels"]) == (120, [])

    def test_fingerprint(self, raw, raw_copy, prepared, tmp_path, tokenizer, transform):
        prepare(raw_copy, tmp_path / "same", min_answer_count=1, progress=False)
        edit(
            raw_copy / "v2_OpenEnded_mscoco_val2014_questions.json",
            "questions",
            lambda entries: entries[0].update(question="what?"),
        )
        prepare(raw_copy, tmp_path / "other", min_answer_count=1, progress=False)
        one, same, other = (
            VQAv2(folder, ["vqav2_train"], tokenizer, transform).fingerprint
            for folder in (prepared, tmp_path / "same", tmp_path / "other")
        )
        assert one == same != other

    def test_pickles_without_its_open_files(self, prepared, tokenizer, transform):
        dataset = VQAv2(prepared, ["vqav2_val"], tokenizer, transform)
        dataset[0]
        copy = pickle.loads(pickle.dumps(dataset))
        assert copy._opened == []
        assert torch.equal(copy[5]["image"], dataset[5]["image"])

    def test_missing_split(self, prepared, tokenizer, transform):
        """As where val has no more than 1000 images, so that none are held out."""
        listed = "vqav2_train, vqav2_val, vqav2_test, vqav2_test-dev"
        message = rf"{prepared.name}: has no split vqav2_rest_val; manifest\.json lists {listed}: choose of these with"
        with pytest.raises(UserError, match=message) as error:
            VQAv2(prepared, ["vqav2_train", "vqav2_rest_val"], tokenizer, transform)
        assert "\n" not in str(error.value)
        with pytest.raises(
            UserError, match=r"vqav2_val\.arrow: no such file; expected .*; make it with `vltune prepare`"
        ):
            VQAv2(prepared / "elsewhere", ["vqav2_val"], tokenizer, transform)

    def test_a_split_that_is_no_list(self, prepared, tokenizer, transform):
        with pytest.raises(UserError, match=r"vqav2_train: name splits in a list, \[vqav2_train\]"):
            VQAv2(prepared, "vqav2_train", tokenizer, transform)

    def test_images_mode(self, prepared, tokenizer, transform):
        with pytest.raises(UserError, match="images='off'"):
            VQAv2(prepared, ["vqav2_train"], tokenizer, transform, images="off")
