"""Raw files that people have in the place of the official ones: read as what they are, or named."""

import gzip
import json
import os
import re
import shutil
from codecs import BOM_UTF8

import pyarrow as pa
import pytest
import torch

from vltune.data.arrow import open_table, write_table
from vltune.data.karpathy import prepare as karpathy
from vltune.data.karpathy.reader import Karpathy
from vltune.data.nlvr2 import prepare as nlvr2
from vltune.data.shapes.karpathy import write_raw as write_f30k
from vltune.data.shapes.nlvr2 import write_raw as write_nlvr2
from vltune.data.shapes.snli_ve import write_raw as write_snli_ve
from vltune.data.shapes.vqav2 import write_raw as write_vqav2
from vltune.data.snli_ve import prepare as snli_ve
from vltune.data.vqav2 import prepare as vqav2
from vltune.data.vqav2.reader import VQAv2
from vltune.errors import BadExampleError, UserError
from vltune.metrics.recall import ranks

IMAGES = {"train": 8, "val": 4, "test": 4}
QUESTIONS = "v2_OpenEnded_mscoco_{}2014_questions.json"
ANNOTATIONS = "v2_mscoco_{}2014_annotations.json"
# data set -> (writer of its raw layout, its prepare, its annotation files, the list in them or None for lines)
SETS = {
    "vqav2": (
        write_vqav2,
        lambda raw, out, **more: vqav2.prepare(raw, out, min_answer_count=1, **more),
        {QUESTIONS.format("train"): "questions", ANNOTATIONS.format("val"): "annotations"},
    ),
    "nlvr2": (write_nlvr2, nlvr2.prepare, {"data/train.json": None, "data/dev.json": None}),
    "f30k": (write_f30k, karpathy.prepare_f30k, {"dataset_flickr30k.json": "images"}),
    "snli_ve": (write_snli_ve, snli_ve.prepare, {"snli_ve_train.jsonl": None, "snli_ve_test.jsonl": None}),
}
FILES = [(name, file) for name, (*_, files) in SETS.items() for file in files]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    for name, (write, *_) in SETS.items():
        write(folder / name, seed=5, images=IMAGES)
    return folder


@pytest.fixture
def world(worlds, tmp_path):
    """A copy of a raw folder of a data set, and its `prepare`."""

    def of(name):
        raw = shutil.copytree(worlds / name, tmp_path / "raw")
        prepare = SETS[name][1]
        return raw, lambda **more: prepare(raw, tmp_path / "out", progress=False, readers=1, **more)

    return of


def load(path, key):
    content = path.read_text()
    return json.loads(content)[key] if key else [json.loads(line) for line in content.splitlines()]


def store(path, key, entries):
    if key:
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: entries}))
    else:
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def change(path, key, number, **fields):
    """Of an entry; None deletes a field."""
    entries = load(path, key)
    entries[number] |= fields
    store(path, key, entries)


def refused(prepare, **more):
    with pytest.raises(UserError) as error:
        prepare(**more)
    said = str(error.value)
    assert "\n" not in said
    assert not re.search(r"\bb'", said)
    return said


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_byte_order_mark_is_read_over(world, tmp_path, name, file):
    raw, prepare = world(name)
    expected = prepare()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.arrow")}
    shutil.rmtree(tmp_path / "out")
    (raw / file).write_bytes(BOM_UTF8 + (raw / file).read_bytes())
    assert prepare() == expected
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.arrow")} == before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda text: gzip.compress(text), "a gzip archive, not an official"),
        (lambda text: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "run `git lfs pull`"),
        (lambda text: b"<!DOCTYPE html><title>Sign in</title>", "a web page, not the file itself"),
        (lambda text: text.decode().encode("utf-16"), "a text in UTF-16, not an official .*; save it as UTF-8"),
        (lambda text: b"", "an empty file"),
        (lambda text: bytes(600), "a file of zeros"),
    ],
)
@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_foreign_file_is_told_for_what_it_is(world, tmp_path, name, file, content, told):
    raw, prepare = world(name)
    (raw / file).write_bytes(content((raw / file).read_bytes()))
    said = refused(prepare)
    assert said.startswith(f"{raw / file}: ")
    assert re.search(told, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "file"), FILES)
def test_an_entry_that_is_none_is_named(world, name, file):
    raw, prepare = world(name)
    key = SETS[name][2][file]
    for junk in (None, 3, "text", ["list"], {}, {"question_id": []}, [[]] * 3):
        entries = load(raw / file, key)
        entries.insert(1, junk)
        store(raw / file, key, entries)
        said = refused(prepare)
        assert f"{file} {'entry' if key else 'line'} 2 (not an official " in said
        store(raw / file, key, entries[:1] + entries[2:])


NUMBERS = {"a text": "7", "nothing": None, "true": True, "a fraction": 3.5, "as a float": 3.0, "negative": -1}
NUMBERS |= {"2^63": 2**63, "10^40": 10**40, "a list": [1], "an object": {"id": 1}}


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(
    ("file", "key", "field"),
    [
        (QUESTIONS.format("train"), "questions", "question_id"),
        (QUESTIONS.format("val"), "questions", "image_id"),
        (ANNOTATIONS.format("train"), "annotations", "question_id"),
    ],
)
def test_a_number_that_is_none_is_named(world, file, key, field, value):
    raw, prepare = world("vqav2")
    change(raw / file, key, 2, **{field: NUMBERS[value]})
    said = refused(prepare)
    assert f"{file} entry 3 (not an official VQAv2 entry: its {field} is " in said
    assert "expected a whole number from 0 to 2^63 - 1" in said


def test_the_largest_number_is_read_back(world, tmp_path, tokenizer, transform):
    raw, prepare = world("vqav2")
    for file, key in ((QUESTIONS, "questions"), (ANNOTATIONS, "annotations")):
        change(raw / file.format("train"), key, 0, question_id=2**63 - 1)
    prepare()
    dataset = VQAv2(tmp_path / "out", ["vqav2_train"], tokenizer, transform)
    assert dataset[0]["id"] == 2**63 - 1


TEXTS = [
    ("vqav2", QUESTIONS.format("train"), "question"),
    ("nlvr2", "data/dev.json", "sentence"),
    ("snli_ve", "snli_ve_test.jsonl", "sentence2"),
]


@pytest.mark.parametrize("value", [None, 3, ["a"], "", " \n"])
@pytest.mark.parametrize(("name", "file", "field"), TEXTS)
def test_a_text_that_says_nothing_is_named(world, name, file, field, value):
    raw, prepare = world(name)
    change(raw / file, SETS[name][2].get(file, "questions"), 1, **{field: value})
    assert f"its {field} is " in refused(prepare)


@pytest.mark.parametrize("name", ["vqav2", "f30k", "nlvr2", "snli_ve"])
def test_half_a_surrogate_pair_is_named_and_a_whole_one_is_read(world, tmp_path, name):
    raw, prepare = world(name)
    file = next(iter(SETS[name][2]))
    text = (raw / file).read_text()
    first = {"vqav2": "question", "f30k": "raw", "nlvr2": "sentence", "snli_ve": "sentence2"}[name]
    at = text.index(f'"{first}": "') + len(f'"{first}": "')
    (raw / file).write_text(f"{text[:at]}\\ud800 {text[at:]}")
    assert "half of a surrogate pair" in refused(prepare)
    (raw / file).write_text(f"{text[:at]}\\ud83d\\ude00 {text[at:]}")
    prepare()
    found = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("*.arrow"))
    assert "\U0001f600 ".encode() in found


def test_each_split_has_its_own_answers(world, tmp_path):
    """Question ids that start at 0 in every split."""
    raw, prepare = world("vqav2")
    given = {}
    for split in ("train", "val"):
        questions = load(raw / QUESTIONS.format(split), "questions")
        annotations = load(raw / ANNOTATIONS.format(split), "annotations")
        new = {question["question_id"]: number for number, question in enumerate(questions)}
        for key, entries in (("questions", questions), ("annotations", annotations)):
            path = raw / (QUESTIONS if key == "questions" else ANNOTATIONS).format(split)
            store(path, key, [entry | {"question_id": new[entry["question_id"]]} for entry in entries])
        given[split] = {
            new[each["question_id"]]: {human["answer"] for human in each["answers"]} for each in annotations
        }
    assert given["train"][0] != given["val"][0] or given["train"][1] != given["val"][1]
    prepare()
    for split, of in given.items():
        rows = open_table(tmp_path / "out" / f"vqav2_{split}-00000-of-00001.arrow", vqav2.SCHEMA.names).to_pylist()
        found = {
            id: set(answers) for row in rows for id, answers in zip(row["question_id"], row["answers"], strict=True)
        }
        assert found.keys() == of.keys()
        assert all(found[id] <= of[id] for id in of)


@pytest.mark.parametrize(
    ("name", "file", "key", "told"),
    [
        ("vqav2", QUESTIONS.format("train"), "questions", r"\d+ is at .* entry 1 already"),
        ("vqav2", ANNOTATIONS.format("val"), "annotations", r"\d+ is at .* entry 1 already"),
        ("nlvr2", "data/dev.json", None, r'"dev-\d+-\d+-\d+" is at .* line 1 already'),
        ("f30k", "dataset_flickr30k.json", "images", r'"flickr30k-images/\d+\.jpg" is at .* entry 1 already'),
        ("snli_ve", "snli_ve_train.jsonl", None, r'"\d+\.jpg#0r1e" is at .* line 1 already'),
    ],
)
def test_what_stands_twice_is_named_and_can_be_left_out(world, name, file, key, told):
    raw, prepare = world(name)
    expected = prepare()
    entries = load(raw / file, key)
    store(raw / file, key, [*entries, entries[0]])
    said = refused(prepare)
    assert re.search(rf"{file} (entry|line) {len(entries) + 1} .*{told}", said)
    counts = prepare(max_bad=1)
    assert counts.pop("bad entries") == 1
    assert counts == expected


@pytest.mark.parametrize(
    ("name", "file", "key"),
    [
        ("vqav2", QUESTIONS.format("train"), "question_id"),
        ("vqav2", ANNOTATIONS.format("val"), "answer"),
        ("nlvr2", "data/dev.json", "label"),
        ("f30k", "dataset_flickr30k.json", "raw"),
        ("snli_ve", "snli_ve_train.jsonl", "gold_label"),
    ],
)
def test_an_entry_with_a_key_twice_is_named(world, name, file, key):
    """JSON's decoder takes the last of them, and other programs the first."""
    raw, prepare = world(name)
    (raw / file).write_text((raw / file).read_text().replace(f'"{key}": ', f'"{key}": 0, "{key}": ', 1))
    said = refused(prepare)
    assert re.search(rf'{re.escape(file)} (entry|line) 1 \(not an official \S+ entry: it holds "{key}" twice\)', said)


def test_an_annotation_file_of_the_test_split_that_cannot_be_read_is_told(world):
    raw, prepare = world("vqav2")
    file = raw / "v2_mscoco_test2015_annotations.json"
    file.unlink()
    file.symlink_to("nowhere")
    assert refused(prepare).startswith(f"{file}: a link to nothing, where a file belongs")


def test_an_annotation_about_another_image_is_named(world):
    raw, prepare = world("vqav2")
    file = ANNOTATIONS.format("train")
    image = load(raw / file, "annotations")[0]["image_id"]
    change(raw / file, "annotations", 0, image_id=image + 1)
    assert f"its image_id is {image}, that of its annotation {image + 1}" in refused(prepare)


def test_the_same_image_name_in_two_folders_of_coco_are_two_images(tmp_path, paint):
    raw, entries = tmp_path / "raw", []
    for number, (folder, split) in enumerate(
        [
            ("train2014", "train"),
            ("val2014", "train"),
            ("val2014", "val"),
            ("train2014", "test"),
            ("val2014", "restval"),
        ]
    ):
        name = "same.jpg" if number < 2 else f"{number}.jpg"
        paint(raw / folder / name, number, (30, 20))
        sentences = [{"raw": f"caption of {number}"}]
        entries.append({"filepath": folder, "filename": name, "split": split, "sentences": sentences})
    (raw / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    counts = karpathy.prepare_coco(raw, tmp_path / "out", progress=False)
    assert (counts["train images"], counts["train captions"]) == (2, 2)
    rows = open_table(
        tmp_path / "out" / "coco_caption_karpathy_train-00000-of-00001.arrow", karpathy.SCHEMA.names
    ).to_pylist()
    assert [(row["image"], row["caption"]) for row in rows] == [
        ((raw / folder / "same.jpg").read_bytes(), [f"caption of {number}"])
        for number, folder in enumerate(("train2014", "val2014"))
    ]


OUTSIDE = ["/etc/passwd", "../1.jpg", "a/../../1.jpg", "", "a\0b", None, 3.5, ["a"]]


@pytest.mark.parametrize("value", OUTSIDE)
@pytest.mark.parametrize(
    ("name", "file", "key", "field"),
    [
        ("f30k", "dataset_flickr30k.json", "images", "filename"),
        ("nlvr2", "data/train.json", None, "directory"),
        ("nlvr2", "data/dev.json", None, "identifier"),
        ("snli_ve", "snli_ve_train.jsonl", None, "Flickr30K_ID"),
    ],
)
def test_a_name_outside_of_the_folder_is_named(world, name, file, key, field, value):
    raw, prepare = world(name)
    change(raw / file, key, 1, **{field: value})
    said = refused(prepare)
    assert f"{file} {'entry' if key else 'line'} 2 " in said
    assert f"its {field} is " in said


def test_a_pair_in_two_directories_is_named(world):
    raw, prepare = world("nlvr2")
    directory = load(raw / "data/train.json", None)[1]["directory"]
    change(raw / "data/train.json", None, 1, directory=99)
    assert f'its directory is "99", that of others of its pair "{directory}"' in refused(prepare)


def test_an_image_without_captions_is_dropped_and_counted(world, tmp_path, tokenizer, transform):
    raw, prepare = world("f30k")
    entries = load(raw / "dataset_flickr30k.json", "images")
    number = next(number for number, entry in enumerate(entries) if entry["split"] == "test")
    change(raw / "dataset_flickr30k.json", "images", number, sentences=[])
    counts = prepare()
    assert (counts["test images"], counts["test dropped images"]) == (IMAGES["test"] - 1, 1)
    dataset = Karpathy(tmp_path / "out", ["f30k_caption_karpathy_test"], tokenizer, transform)
    assert len(dataset.images) == IMAGES["test"] - 1
    perfect = torch.zeros(len(dataset.images), len(dataset.captions))
    perfect[torch.from_numpy(dataset.owner), torch.arange(len(dataset.captions))] = 1.0
    assert all((places == 1).all() for places in ranks(perfect, torch.from_numpy(dataset.owner)))


def test_a_row_without_captions_of_a_file_that_is_there_already_is_named(tmp_path, tokenizer, transform, paint):
    rows = []
    for number, captions in enumerate((["one", "two"], [], ["three"])):
        paint(tmp_path / f"{number}.png", number, (20, 20))
        image = (tmp_path / f"{number}.png").read_bytes()
        rows.append({"image": image, "caption": captions, "image_id": f"{number}.png", "split": "test"})
    table = pa.Table.from_pylist(rows, karpathy.SCHEMA)
    write_table(tmp_path / "f30k_caption_karpathy_test.arrow", table.schema, table.to_batches())
    with pytest.raises(UserError, match=r"karpathy_test\.arrow row 1: no caption, 1 of 3 images have none"):
        Karpathy(tmp_path, ["f30k_caption_karpathy_test"], tokenizer, transform)


def test_recall_takes_no_image_without_captions():
    with pytest.raises(UserError, match="image 1 has no caption, 1 of 3 have none"):
        ranks(torch.zeros(3, 2), torch.tensor([0, 2]))


def no_questions(raw):
    store(raw / QUESTIONS.format("val"), "questions", [])


def no_test_images(raw):
    entries = load(raw / "dataset_flickr30k.json", "images")
    store(raw / "dataset_flickr30k.json", "images", [entry for entry in entries if entry["split"] != "test"])


def all_undecided(raw):
    entries = load(raw / "snli_ve_dev.jsonl", None)
    store(raw / "snli_ve_dev.jsonl", None, [entry | {"gold_label": "-"} for entry in entries])


def blank_lines(raw):
    (raw / "data" / "dev.json").write_text("\n\n")


@pytest.mark.parametrize(
    ("name", "empty", "told"),
    [
        ("vqav2", no_questions, r"nothing is left of val \(dropped annotations: 16\); no run could use it"),
        ("f30k", no_test_images, "nothing is left of test; no run could use it"),
        ("snli_ve", all_undecided, r"nothing is left of dev \(dropped sentences: 12\); no run could use it"),
        ("nlvr2", blank_lines, "data/dev.json: an empty file, not an official NLVR2 file"),
    ],
)
def test_an_empty_split_ends_the_preparation(world, tmp_path, name, empty, told):
    raw, prepare = world(name)
    empty(raw)
    with pytest.raises(UserError, match=told):
        prepare()
    assert not (tmp_path / "out").exists()


def test_an_empty_vocabulary_ends_the_preparation(worlds, tmp_path):
    with pytest.raises(UserError, match=r"no answer is given 999 times or more .* give a smaller --min-answer-count"):
        vqav2.prepare(worlds / "vqav2", tmp_path / "out", min_answer_count=999, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_file_in_anothers_place_is_told(world, tmp_path):
    raw, prepare = world("vqav2")
    for name in (QUESTIONS, ANNOTATIONS):
        shutil.copyfile(raw / name.format("val"), raw / name.format("train"))
    shutil.copytree(raw / "val2014", raw / "train2014", dirs_exist_ok=True)
    for image in (raw / "train2014").glob("COCO_val2014_*"):
        image.rename(image.with_name(image.name.replace("val2014", "train2014")))
    with pytest.raises(UserError, match=r"v2_\S+ is a copy of v2_\S+, to the byte; unpack both again"):
        prepare()
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_is_something_else_is_told(world, tmp_path, tokenizer, transform):
    _, prepare = world("f30k")
    prepare()
    file = tmp_path / "out" / "manifest.json"
    whole = json.loads(file.read_text())

    def read():
        return Karpathy(tmp_path / "out", ["f30k_caption_karpathy_test"], tokenizer, transform)

    file.write_bytes(BOM_UTF8 + file.read_bytes())
    assert len(read()) == 5 * IMAGES["test"]
    for junk in (
        [],
        3,
        {"splits": []},
        whole | {"splits": {"a": None}},
        whole | {"splits": {"a": [{"file": "../x.arrow", "rows": 1, "texts": 1}]}},
        whole | {"splits": {"a": [{"file": "x.arrow", "rows": "1", "texts": 1}]}},
        whole | {"subsets": {"a": 3}},
        whole | {"answers": [3]},
        whole | {"images": []},
        whole | {"captions": {"test": "20"}},
        whole | {"dropped_images": [1]},
        whole | {"min_answer_count": 9},
    ):
        file.write_text(json.dumps(junk))
        with pytest.raises(UserError, match=r"manifest\.json: not as `vltune prepare` writes it, "):
            read()


def test_a_manifest_with_a_key_twice_is_told(world, tmp_path, tokenizer, transform):
    _, prepare = world("f30k")
    expected = prepare()
    file = tmp_path / "out" / "manifest.json"
    file.write_text(file.read_text().rstrip()[:-1] + ', "splits": {}}')
    with pytest.raises(UserError, match=r"manifest\.json: not valid JSON \('splits' stands twice\)"):
        Karpathy(tmp_path / "out", ["f30k_caption_karpathy_test"], tokenizer, transform)
    assert prepare() == expected, "which makes it anew"


@pytest.mark.parametrize(("key", "junk"), [("images", None), ("images", []), ("captions", {}), ("sources", 3)])
def test_what_was_prepared_before_and_tells_it_no_more_is_made_anew(world, tmp_path, key, junk):
    _, prepare = world("f30k")
    expected = prepare()
    file = tmp_path / "out" / "manifest.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps({name: of for name, of in whole.items() if name != key} | ({key: junk} if junk else {})))
    assert prepare() == expected
    assert json.loads(file.read_text()) == whole


def test_the_same_texts_are_not_read_twice(world, tmp_path, tokenizer, transform):
    _, prepare = world("f30k")
    prepare()
    stem = "f30k_caption_karpathy"
    with pytest.raises(UserError, match=rf"{stem}_val and {stem}_val share texts, which would be read twice"):
        Karpathy(tmp_path / "out", [f"{stem}_val", f"{stem}_test", f"{stem}_val"], tokenizer, transform)


def test_a_column_without_its_values_is_told(world, tmp_path, tokenizer, transform):
    _, prepare = world("vqav2")
    prepare()
    [path] = (tmp_path / "out").glob("vqav2_val-*.arrow")
    table = open_table(path, vqav2.SCHEMA.names)
    for column, nothing in (("question_id", [None]), ("questions", None), ("answer_labels", [[None]])):
        rows = table.to_pylist()
        rows[1][column] = nothing and nothing * len(rows[1][column])
        hurt = pa.Table.from_pylist(rows, vqav2.SCHEMA)
        write_table(tmp_path / column / "vqav2_val.arrow", hurt.schema, hurt.to_batches())
        with pytest.raises(UserError, match=rf"vqav2_val\.arrow: its column {column} lacks \d+ values"):
            VQAv2(tmp_path / column, ["vqav2_val"], tokenizer, transform)


PLACES = {
    "nothing": (lambda path: None, "missing"),
    "folder": (lambda path: path.mkdir(), "a folder"),
    "pipe": (os.mkfifo, "a pipe"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "link to nothing": (lambda path: path.symlink_to("nowhere"), "a link to nothing"),
    "link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "nothing in it": (lambda path: path.touch(), "an empty file"),
    "web page": (lambda path: path.write_text("<!DOCTYPE html><html>"), "a web page"),
    "PostScript": (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "a PostScript file"),
}


@pytest.mark.parametrize("name", SETS)
def test_what_lies_in_an_images_place_is_told(tmp_path, name):
    """No pipe is waited for, no device read to its end."""
    raw, (write, prepare, _) = tmp_path / "raw", SETS[name]
    write(raw, images={"train": 16, "val": 4, "test": 4})
    images = sorted(path for path in raw.rglob("*") if path.suffix in (".jpg", ".png"))
    train = [
        path for path in images if not any(split in str(path.relative_to(raw)) for split in ("test", "dev", "val"))
    ]
    placed = dict(zip(train[:: 2 if name == "nlvr2" else 1], PLACES.values(), strict=False))
    for path, (make, _) in placed.items():
        path.unlink()
        make(path)
    with pytest.raises(BadExampleError) as error:
        prepare(raw, tmp_path / "out", max_bad=len(placed) - 1, progress=False, readers=1)
    assert str(error.value).startswith(f"{raw}: {len(placed)} bad images")
    prepare(raw, tmp_path / "out", max_bad=len(placed), progress=False, readers=1)
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())["bad_images"]
    assert {raw / file for file in told} == placed.keys()
    for path, (_, what) in placed.items():
        assert what in told[str(path.relative_to(raw))]
