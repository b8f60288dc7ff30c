"""What all readers share: stored features in the place of pixels, pictures and texts to compute them from."""

import json
import pickle
import shutil
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from vltune.data import reader as reading
from vltune.data.arrow import open_table, write_table
from vltune.data.collate import Collate
from vltune.data.karpathy.reader import Karpathy
from vltune.data.nlvr2.reader import NLVR2Reader
from vltune.data.reader import Reader
from vltune.data.shapes import ensure
from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.snli_ve.reader import SNLIVEReader
from vltune.data.vqav2.reader import SCHEMA, VQAv2
from vltune.errors import BadExampleError, UserError


class Stored:
    """Features that say which image and which text they are of."""

    def image(self, picture, which):
        return torch.tensor([[picture, which]] * 3).float()

    def text(self, ids):
        return torch.tensor(ids).float()[:, None]


class OnlyText(Stored):
    def image(self, picture, which):
        return None


def val_file(prepared):
    [path] = prepared.glob("vqav2_val*.arrow")
    return path


@pytest.fixture
def dataset(prepared, tokenizer, transform):
    return VQAv2(prepared, ["vqav2_train", "vqav2_val"], tokenizer, transform)


def test_features_take_the_place_of_pixels(dataset, monkeypatch, tokenizer, transform):
    plain = [dataset[i] for i in (0, 9, 250)]
    dataset.features = Stored()
    monkeypatch.setattr(type(transform), "__call__", None)
    examples = [dataset[i] for i in (0, 9, 250)]
    for before, e in zip(plain, examples, strict=True):
        assert e.keys() == before.keys() - {"image"} | {"image_features", "text_features"}
        assert e["text_features"][:, 0].tolist() == e["text_ids"] == before["text_ids"]
    assert [e["image_features"][0].tolist() for e in examples] == [[0, 0], [2, 0], [62, 0]]
    batch = Collate(tokenizer.pad_id, transform.mean, transform.std)(examples)
    assert batch["image_features"].shape == (3, 3, 2)
    assert batch["text_features"].shape == (*batch["text_ids"].shape, 1)


def test_features_of_one_tower(dataset):
    dataset.features = OnlyText()
    assert dataset[0].keys() >= {"image", "text_ids", "text_features"}


def test_shuffled_images_have_the_features_of_the_image_shown(prepared, tokenizer, transform):
    dataset = VQAv2(prepared, ["vqav2_train"], tokenizer, transform, images="shuffled")
    true = VQAv2(prepared, ["vqav2_train"], tokenizer, transform)
    shown = dataset[8]["image"]
    dataset.features = Stored()
    picture = int(dataset[8]["image_features"][0, 0])
    assert torch.equal(true[4 * picture]["image"], shown)


def test_contents_are_the_stored_bytes(dataset, raw):
    assert dataset.pictures() == 80
    files = {sha256(path.read_bytes()).digest() for path in raw.glob("*2014/*.jpg")}
    assert {sha256(dataset.content(picture)).digest() for picture in range(80)} == files


def test_texts_are_the_distinct_ones(dataset):
    texts = list(dataset.texts())
    asked = [dataset.token_ids(i) for i in range(len(dataset))]
    assert len(texts) < len(asked)
    assert texts == [list(key) for key in dict.fromkeys(map(tuple, asked))]


def test_size_of_a_broken_image(dataset, monkeypatch):
    monkeypatch.setattr(dataset, "content", lambda picture, which: b"<html>")
    with pytest.raises(BadExampleError, match=r"vqav2_val.*\.arrow row 3 image_id 64: "):
        dataset.size(63)


def test_broken_manifest(prepared, tmp_path, tokenizer, transform):
    (tmp_path / "vqav2_val.arrow").write_bytes(val_file(prepared).read_bytes())
    (tmp_path / "manifest.json").write_text('{"version": ')
    with pytest.raises(UserError, match=r"manifest\.json: not valid JSON .*run `vltune prepare` again"):
        _ = VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform).fingerprint


def test_facts(prepared, tmp_path, tokenizer, transform, dataset):
    assert dataset.facts == {"answers": dataset.answers}
    (tmp_path / "vqav2_val.arrow").write_bytes(val_file(prepared).read_bytes())
    assert VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform).facts == {}
    assert isinstance(dataset, Reader)


READERS = {
    "vqav2": (VQAv2, "vqav2_val"),
    "nlvr2": (NLVR2Reader, "nlvr2_dev"),
    "f30k": (Karpathy, "f30k_caption_karpathy_val"),
    "snli_ve": (SNLIVEReader, "snli_dev"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    for layout in READERS:
        ensure(root, layout, seed=1, images={"train": 4, "val": 12, "test": 4})
    return root


def shard(source, folder, parts, stem, splits=None, rows_per_batch=4):
    """Writes a split's file in as many shards, listed in a manifest.  splits: name -> numbers of its shards."""
    table = pa.concat_tables([open_table(path, pa.ipc.open_file(path).schema.names) for path in source])
    starts = [len(table) * part // parts for part in range(parts + 1)]
    listed = []
    for number, (start, end) in enumerate(pairwise(starts)):
        name = f"{stem}-{number:05d}-of-{parts:05d}.arrow"
        part = table[start:end]
        write_table(folder / name, table.schema, part.to_batches(max_chunksize=rows_per_batch))
        listed.append({"file": name, "rows": len(part), "texts": 0})
    splits = splits or {stem: range(parts)}
    manifest = {"splits": {name: [listed[i] for i in chosen] for name, chosen in splits.items()}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key], key


@pytest.mark.parametrize("layout", READERS)
def test_shards_give_what_a_single_file_gives(world, tmp_path, tokenizer, transform, layout):
    reader, stem = READERS[layout]
    found = sorted((world / layout).glob(f"{stem}*.arrow"))
    whole = reader(world / layout, [stem], tokenizer, transform)
    shard(found, tmp_path / "shards", 5, stem)
    shard(found, tmp_path / "single", 1, stem, rows_per_batch=None)
    (tmp_path / "single" / "manifest.json").unlink()
    next((tmp_path / "single").glob("*.arrow")).rename(tmp_path / "single" / f"{stem}.arrow")
    for folder in ("shards", "single"):
        parts = reader(tmp_path / folder, [stem], tokenizer, transform)
        assert len(parts) == len(whole) > 12
        for i in range(len(whole)):
            same(parts[i, i], whole[i, i])
        assert parts.pictures() == whole.pictures()


def test_a_split_may_be_a_view_of_others_shards(prepared, tmp_path, tokenizer, transform):
    """As vqav2_val is of vqav2_trainable_val and vqav2_rest_val."""
    stems = {"vqav2_val": [0, 1, 2], "vqav2_trainable_val": [0, 1], "vqav2_rest_val": [2]}
    shard([val_file(prepared)], tmp_path, 3, "vqav2_val", stems)
    val, most, rest = (VQAv2(tmp_path, [stem], tokenizer, transform) for stem in stems)
    both = VQAv2(tmp_path, ["vqav2_trainable_val", "vqav2_rest_val"], tokenizer, transform)
    assert (len(val), len(most) + len(rest)) == (80, 80)
    for i in range(80):
        same(val[i], both[i])
    same(rest[3], val[len(most) + 3])


def test_a_listed_file_that_is_not_there_or_not_whole(prepared, tmp_path, tokenizer, transform):
    shard([val_file(prepared)], tmp_path, 3, "vqav2_val")
    second = tmp_path / "vqav2_val-00001-of-00003.arrow"
    shutil.copy(tmp_path / "vqav2_val-00000-of-00003.arrow", second)
    with pytest.raises(UserError, match=r"00001-of-00003\.arrow: 6 rows, manifest\.json says 7; run `vltune prepare`"):
        VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform)
    second.unlink()
    with pytest.raises(UserError, match=r"vqav2_val-00001-of-00003\.arrow: no such file") as error:
        VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform)
    assert "\n" not in str(error.value)


def test_where_shards_lie_is_not_what_the_data_are(prepared, tmp_path, tokenizer, transform):
    manifest = json.loads((prepared / "manifest.json").read_text())
    plain = {key: value for key, value in manifest.items() if key not in ("version", "splits", "source_bytes")}
    shard([val_file(prepared)], tmp_path, 2, "vqav2_val")
    listed = json.loads((tmp_path / "manifest.json").read_text())
    expected = VQAv2(prepared, ["vqav2_train"], tokenizer, transform).fingerprint
    for more in ({}, {"version": "9"}, {"source_bytes": {"a": 1}}):
        (tmp_path / "manifest.json").write_text(json.dumps(plain | listed | more))
        assert VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform).fingerprint == expected
    assert expected == sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def test_a_changed_file_is_indexed_anew(prepared, tmp_path, tokenizer, transform):
    table = open_table(val_file(prepared), SCHEMA.names)
    write_table(tmp_path / "vqav2_val.arrow", SCHEMA, table.to_batches())
    before = VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform)
    write_table(tmp_path / "vqav2_val.arrow", SCHEMA, table[5:].to_batches())
    after = VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform)
    assert len(after) == len(before) - 20
    for i in range(len(after)):
        same(after[i], before[i + 20])  # whose file is gone, but still mapped


def test_nothing_is_computed_when_it_is_opened_again(prepared, tokenizer, transform, monkeypatch):
    dataset = VQAv2(prepared, ["vqav2_train"], tokenizer, transform)
    for name in ("_indexed", "_tokenised"):
        monkeypatch.setattr(Reader, name, None)
    again = VQAv2(prepared, ["vqav2_train"], tokenizer, transform)
    for i in (0, 100, 239):
        same(again[i], dataset[i])


def test_what_another_code_computed_is_computed_anew(prepared, tokenizer, transform, monkeypatch):
    VQAv2(prepared, ["vqav2_train"], tokenizer, transform)
    monkeypatch.setattr(reading, "code_of", lambda kind, base: f"{kind.__name__} and {base.__name__}, mended")
    monkeypatch.setattr(Reader, "_indexed", None)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        VQAv2(prepared, ["vqav2_train"], tokenizer, transform)


def test_another_vocabulary_has_its_own_token_ids(prepared, tmp_path, tokenizer, transform):
    long = VQAv2(prepared, ["vqav2_val"], tokenizer, transform)
    short = VQAv2(prepared, ["vqav2_val"], type(tokenizer)(VOCABULARY, 6), transform)
    assert long.lengths.max() > 6 == short.lengths.max()
    turned = tmp_path / "vocab.txt"
    turned.write_text("\n".join(VOCABULARY.read_text().splitlines()[::-1]))
    other = VQAv2(prepared, ["vqav2_val"], type(tokenizer)(turned, 20), transform)
    assert [size - 1 - i for i in other.token_ids(7) for size in [tokenizer.size]] == long.token_ids(7)


def test_lengths_are_of_the_token_ids(dataset):
    assert dataset.lengths.tolist() == [len(dataset.token_ids(i)) for i in range(len(dataset))]


def test_workers_open_the_files_themselves(dataset, tokenizer, transform):
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy._opened, copy._mapped) == ([], [])
    collate = Collate(tokenizer.pad_id, transform.mean, transform.std)
    read = torch.utils.data.DataLoader(copy, 32, collate_fn=collate, num_workers=2, multiprocessing_context="spawn")
    for number, batch in enumerate(read):
        same(batch, collate([dataset[i] for i in range(32 * number, 32 * number + 32)]))
    assert number == 9


def test_pages_of_images_are_given_back(dataset, monkeypatch):
    """Resident memory that belongs to files, while every image is read again and again."""

    def of_files():
        lines = Path("/proc/self/smaps").read_text().partition(str(dataset._paths[0]))[2].splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))

    monkeypatch.setattr(reading, "RESIDENT_BYTES", 2**62)
    read = [sha256(dataset.content(picture)).digest() for picture in range(80)]
    assert of_files() * 1000 > dataset._touched / 2
    monkeypatch.setattr(reading, "RESIDENT_BYTES", 1)
    assert [sha256(dataset.content(picture)).digest() for picture in range(80)] == read
    assert of_files() * 1000 < 150_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"questions": [[]] * 20, "question_id": [[]] * 20}, r"\['vqav2_val'\] hold no questions"),
        ({"questions": [[None] * 4] * 20}, r"vqav2_val\.arrow: its column questions lacks 80 values"),
        ({"questions": [["a"]] * 20}, r"questions, ids, labels and scores of \['vqav2_val'\] differ in number"),
    ],
)
def test_what_does_not_belong_together_is_told(prepared, tmp_path, tokenizer, transform, change, message):
    columns = open_table(val_file(prepared), SCHEMA.names).to_pydict() | change
    if "question_id" in change:
        columns |= dict.fromkeys(("answers", "answer_labels", "answer_scores"), change["questions"])
    write_table(tmp_path / "vqav2_val.arrow", SCHEMA, pa.table(columns, SCHEMA).to_batches())
    with pytest.raises(UserError, match=message) as error:
        VQAv2(tmp_path, ["vqav2_val"], tokenizer, transform)
    assert "\n" not in str(error.value)


def test_an_item_of_one_sentence_where_there_are_two(world, tmp_path, tokenizer, transform):
    [path] = (world / "snli_ve").glob("snli_dev*.arrow")
    rows = open_table(path, SNLIVEReader.schema.names).to_pylist()
    rows[3]["sentences"][1] = ["alone"]
    write_table(
        tmp_path / "snli_dev.arrow", SNLIVEReader.schema, [pa.RecordBatch.from_pylist(rows, SNLIVEReader.schema)]
    )
    with pytest.raises(UserError, match=r"\['snli_dev'\] lack a caption and a hypothesis in every item of sentences"):
        SNLIVEReader(tmp_path, ["snli_dev"], tokenizer, transform)


def test_examples_that_are_decoded_once_need_no_workers(prepared, tokenizer, transform):
    small = VQAv2(prepared, ["vqav2_train"], tokenizer, transform)
    assert small.example_bytes == 0
    large = VQAv2(prepared, ["vqav2_train"], tokenizer, transform, image_cache_bytes=0)
    assert large.example_bytes == 4 * 3 * 64 * 48
    transform.randaugment = "released-m9-n2"
    assert small.example_bytes == large.example_bytes
