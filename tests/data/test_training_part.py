"""`dataset.train_fraction`: a share of the training images, nested, each with all of its texts."""

import pickle
from itertools import pairwise
from pathlib import Path

import pytest
import tiny
import torch
from composed import composed

from vltune.assemble.data import open_data
from vltune.assemble.factory import check_values
from vltune.data.karpathy.reader import Karpathy
from vltune.data.nlvr2.reader import NLVR2Reader
from vltune.data.shapes import ensure
from vltune.data.snli_ve.reader import SNLIVEReader
from vltune.data.vqav2.reader import VQAv2
from vltune.engine.source import TrainingData
from vltune.errors import UserError
from vltune.features.cache import ImageInputs
from vltune.runs.signals import StopRequest
from vltune.settings.config import RunConfig

CONF = Path(__file__).parents[2] / "conf"
IMAGES = {"train": 40, "val": 8, "test": 4}
READERS = {  # layout -> (reader, its splits, texts of a picture)
    "vqav2": (VQAv2, ["vqav2_train", "vqav2_val"], 4),
    "nlvr2": (NLVR2Reader, ["nlvr2_train", "nlvr2_dev"], 4),
    "f30k": (Karpathy, ["f30k_caption_karpathy_train", "f30k_caption_karpathy_val"], 5),
    "snli_ve": (SNLIVEReader, ["snli_train", "snli_dev"], 3),
}


class Numbers:
    """Features that are the picture's number."""

    def image(self, picture, which):
        return torch.tensor([[picture]])

    def text(self, ids):
        return None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    for layout in READERS:
        ensure(root, layout, seed=1, images=IMAGES)
    return root


@pytest.fixture(params=READERS)
def read(request, world, tokenizer, transform):
    reader, splits, texts = READERS[request.param]

    def made(**more):
        return reader(world / request.param, splits, tokenizer, transform, **more)

    made.texts = texts
    return made


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k] for k in a)


def numbers(reader):
    """Of the picture that each example shows, among those that are read."""
    reader.features = Numbers()
    return [int(reader[i][f"{reader.image_columns[0]}_features"]) for i in range(len(reader))]


def examples(reader):
    """Each image's bytes and a text of it."""
    return {(reader.content(n).to_pybytes(), *reader[i]["text_ids"]) for i, n in enumerate(numbers(reader))}


def test_smaller_shares_are_parts_of_larger_ones_and_every_text_of_an_image_goes_along(read):
    found = []
    for fraction in (0.1, 0.35, 0.5, 1.0):
        reader = read(fraction=fraction)
        assert reader.pictures() == round(48 * fraction)
        assert len(reader) == reader.pictures() * read.texts
        found.append(examples(reader))
    for less, more in pairwise(found):
        assert less < more


def test_an_example_is_what_it_is_in_the_whole(read):
    whole, part = read(), read(fraction=0.3)
    place = {whole[i]["id"]: i for i in range(len(whole))}
    for i in range(len(part)):
        e, expected = part[i, 7], whole[place[part[i]["id"]], 7]
        drawn = {key for key in e if key.startswith("false_")}
        assert same({k: e[k] for k in e.keys() - drawn}, {k: expected[k] for k in expected.keys() - drawn})
    assert part.lengths.tolist() == [len(part[i]["text_ids"]) for i in range(len(part))]
    assert {tuple(ids) for ids in part.texts()} == {tuple(part[i]["text_ids"]) for i in range(len(part))}


def test_which_ones_follows_from_the_seed_of_the_part_alone(read):
    def ids(**more):
        reader = read(**more)
        return [reader[i]["id"] for i in range(len(reader))]

    assert ids(fraction=0.3) == ids(fraction=0.3, seed=5)
    assert ids(fraction=0.3) != ids(fraction=0.3, fraction_seed=1)


def test_a_worker_reads_the_same_part(read):
    part = read(fraction=0.3)
    copy = pickle.loads(pickle.dumps(part))
    assert [part[i]["id"] for i in range(len(part))] == [copy[i]["id"] for i in range(len(copy))]


def test_towers_are_asked_for_the_part_alone(read, tmp_path):
    whole, part = (read(fraction=fraction) for fraction in (1.0, 0.3))
    session = tiny.session(None, None, tmp_path, StopRequest())
    images = [ImageInputs(session, [reader]) for reader in (whole, part)]
    assert images[1].where.keys() < images[0].where.keys()
    assert len(images[1].where) <= part.pictures() * len(part.image_columns)


def test_shuffled_images_are_of_the_part_too(read):
    true, shuffled = read(fraction=0.3), read(fraction=0.3, images="shuffled")
    own, shown = numbers(true), numbers(shuffled)
    assert set(own) == set(shown) == set(range(true.pictures()))
    assert not any(a == b for a, b in zip(own, shown, strict=True))


def test_false_captions_are_of_the_other_images_of_the_part(world, tokenizer, transform):
    reader, splits, _ = READERS["f30k"]
    part = reader(world / "f30k", splits, tokenizer, transform, fraction=0.1, false_captions=200)
    said = [part.captions[i]["text_ids"] for i in range(len(part))]
    assert part.owner.tolist() == [i // 5 for i in range(len(part))]
    for i in range(len(part)):
        others = {tuple(text) for j, text in enumerate(said) if part.owner[j] != part.owner[i]}
        drawn = {tuple(ids) for ids in part[i, 3]["false_text_ids"]}
        assert drawn <= others
        assert len(drawn) > len(others) / 2


def test_an_epoch_is_the_part_once(read):
    part = read(fraction=0.5)
    batch_size = part.pictures()
    data = TrainingData(part, lambda batch: [e["id"] for e in batch], batch_size, seed=0, workers=0)
    assert data.steps_per_epoch == read.texts
    expected = sorted(part[i]["id"] for i in range(len(part)))
    for epoch in (0, 1):
        batches = data.batches(epoch * read.texts, (epoch + 1) * read.texts, 1, 0, 1)
        assert sorted(number for batch in batches for number in batch) == expected


def opened(world, *overrides):
    config = composed(f"dataset.data_dir={world}", *overrides)
    check_values(config)
    return open_data(RunConfig.of(config))


@pytest.mark.parametrize("task", ["vqa", "nlvr2", "retrieval", "snli_ve"])
def test_validation_and_test_are_whole(world, task):
    chosen = [f"task={task}", "dataset=shapes", "engine.batch_size=4"]
    whole, part = opened(world, *chosen), opened(world, *chosen, "dataset.train_fraction=0.25")
    assert part.training().dataset.pictures() == 10
    assert part.training().steps_per_epoch == whole.training().steps_per_epoch // 4
    for split in ("val", "test"):
        assert len(part.split(split)) == len(whole.split(split))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("dataset.train_fraction=0", "dataset.train_fraction=0: must be a number above 0, at most 1"),
        ("dataset.train_fraction=10", "dataset.train_fraction=10: must be a number above 0, at most 1"),
        ("dataset.train_fraction=half", "dataset.train_fraction=half: must be a number above 0, at most 1"),
        ("dataset.train_fraction_seed=-1", "dataset.train_fraction_seed=-1: must be a whole number of at least 0"),
        (
            "dataset.train_fraction=0.1",
            "dataset.train_fraction=0.1: leaves 16 examples, which fill no batch of engine.batch_size=32",
        ),
    ],
)
def test_a_wrong_share_is_told_in_one_line(world, chosen, message):
    with pytest.raises(UserError) as error:
        opened(world, chosen)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
