"""Labelled images as a run reads them: all of them, or a few of each class."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from labelled_layouts import official, split_json

from vltune.data.collate import Collate
from vltune.data.dataset import open_examples, preparation
from vltune.data.examples import Shown
from vltune.data.labelled.reader import LabelledImages
from vltune.data.labelled.shots import base_classes, drawn, in_order, require
from vltune.data.labelled.templates import templates
from vltune.errors import UserError

TEMPLATE = "a photo of a {}, a type of pet."


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    raw = official("oxford_pets", tmp_path_factory.mktemp("raw"))
    out = tmp_path_factory.mktemp("pets")
    preparation("oxford_pets")(raw, out, progress=False)
    return out


@pytest.fixture
def read(pets, tokenizer, transform):
    def open_reader(role="train", folder=pets, **more):
        name = json.loads((folder / "manifest.json").read_text())["data_set"]
        return LabelledImages(folder, [f"{name}_{role}"], tokenizer, transform, role=role, **more)

    return open_reader


def test_an_example_has_a_label_and_no_text(read):
    reader = read()
    assert len(reader) == 18
    assert reader[7].keys() == {"id", "image", "label"}
    assert (reader[7]["id"], reader[7]["label"]) == (7, 1)
    assert list(reader.texts()) == []
    assert reader.lengths.tolist() == [0] * 18
    batch = Collate(0, (0.5,) * 3, (0.5,) * 3)([reader[0], reader[17]])
    assert batch["label"].tolist() == [0, 2]
    assert {"text_ids", "text_mask"}.isdisjoint(batch)
    again = pickle.loads(pickle.dumps(reader))
    assert torch.equal(again[3]["image"], reader[3]["image"])


def test_facts_are_classes_prompts_and_the_tokenizer(read):
    reader = read()
    assert reader.facts == {
        "classes": ["tabby cat", "Basset Hound", "red fox"],
        "templates": [TEMPLATE],
        "tokenizer": reader.tokenizer,
    }
    assert {*reader.gives} == reader.facts.keys()


def test_few_shots_are_of_each_class_and_those_of_fewer_lie_inside(read):
    before = set()
    for shots in (1, 2, 4, 6):
        reader = read(protocol="few_shot", shots=shots, draw=1)
        labels = [reader[i]["label"] for i in range(len(reader))]
        assert labels == [label for label in range(3) for _ in range(shots)]
        assert before <= {*reader.selection["ids"]}
        assert reader.may_be_few
        before = {*reader.selection["ids"]}


def test_the_list_follows_from_the_seed(read):
    one, same, other = (read(protocol="few_shot", shots=2, draw=draw).selection for draw in (1, 1, 2))
    assert one == same
    assert one["sha256"] != other["sha256"]
    assert (one["protocol"], one["shots"], one["seed"]) == ("few_shot", 2, 1)
    # Pinned: another list under the same seed would be another run of the same name.
    assert one["sha256"] == "3ec4ae0f0bc4d7e8d51ad6c545634d4661b873270efd3c8db511ea50a361dbdf"


def test_the_hash_does_not_depend_on_the_order_of_the_files(tmp_path, read):
    found = split_json(tmp_path / "raw", "split_zhou_OxfordPets.json", "images")
    found["train"].reverse()
    (tmp_path / "raw" / "split_zhou_OxfordPets.json").write_text(json.dumps(found))
    preparation("oxford_pets")(tmp_path / "raw", tmp_path / "out", progress=False)
    few = {"protocol": "few_shot", "shots": 2, "draw": 1}
    one, other = read(**few).selection, read(folder=tmp_path / "out", **few).selection
    assert one["sha256"] == other["sha256"]
    assert one["ids"] != other["ids"]


def test_base_to_new_trains_on_the_first_half(read):
    reader = read(protocol="base_to_new", shots=2)
    assert [reader[i]["label"] for i in range(len(reader))] == [0, 0, 1, 1]
    assert [*base_classes(3)], [*base_classes(4)] == ([0, 1], [0, 1])
    val = read("val", protocol="base_to_new", shots=16)
    assert {val[i]["label"] for i in range(len(val))} == {0, 1}


def test_validation_has_four_of_a_class_at_most_and_the_test_is_whole(read):
    assert len(read("val", protocol="few_shot", shots=1)) == 3
    assert len(read("val", protocol="few_shot", shots=16)) == 6  # there are two of each
    assert len(read("val")) == 6
    for protocol in ("few_shot", "base_to_new", "full"):
        assert len(read("test", protocol=protocol, shots=1)) == 9
    four = drawn([str(i) for i in range(20)], np.zeros(20, int), {0: 4}, 0)
    assert len(four) == 4


def test_full_reads_all_and_has_no_selection(read):
    reader = read(protocol="full", shots=1)
    assert (len(reader), reader.selection, reader.may_be_few) == (18, None, False)


def test_more_shots_than_a_class_has(read):
    with pytest.raises(UserError, match=r"task\.shots=7: the class 'tabby cat' has 6 training images; 6 is the most"):
        read(protocol="few_shot", shots=7)
    with pytest.raises(UserError, match=r"6 is the most that works: task\.shots=4"):
        read(protocol="few_shot", shots=16)
    with pytest.raises(UserError, match="the class 'b' has 0 training images; leave the class out"):
        require(np.array([0, 0]), range(2), 1, ["a", "b"])


def test_none_moves_past_another_where_one_goes():
    names = [f"image {i}" for i in range(50)]
    order = in_order(names, 3)
    assert {*order} == {*names} and order != names
    assert in_order(names[:-1], 3) == [name for name in order if name != names[-1]]
    assert in_order(reversed(names), 3) == order


def test_a_share_goes_with_few_shots(read):
    assert len(read(fraction=0.5)) == 9
    with pytest.raises(UserError, match=r"task\.shots=6"):
        read(fraction=0.5, protocol="few_shot", shots=6)


def few_shot_file(path, labels=(0, 1, 2), name="train/{label}_{number}.jpg", numbers=(0, 3), val="val/{label}_1.jpg"):
    data = [
        {"impath": f"./data/oxford_pets/images/{name.format(label=label, number=number)}", "label": label}
        for label in labels
        for number in numbers
    ]
    val = [{"impath": f"images/{val.format(label=label)}", "label": label} for label in labels]
    path.write_text(json.dumps({"train": {"data": data, "indices": []}, "val": {"data": val, "indices": []}}))
    return path


def test_a_list_of_cross_modal_adaptation(tmp_path, read):
    file = few_shot_file(tmp_path / "shot_2-seed_1.json")
    reader = read(protocol="few_shot", shots=2, few_shot_list=file)
    assert [reader.names()[i] for i in reader.selection["ids"]] == [
        f"train/{i}_{j}.jpg" for i in range(3) for j in (0, 3)
    ]
    assert reader.selection["seed"] is None
    assert len(read("val", protocol="few_shot", shots=2, few_shot_list=file)) == 3
    assert len(read("test", protocol="few_shot", shots=2, few_shot_list=file)) == 9
    assert len(read(protocol="base_to_new", shots=2, few_shot_list=file)) == 4
    assert reader.fingerprint != read().fingerprint


@pytest.mark.parametrize(
    ("make", "more", "message"),
    [
        (lambda path: path, {}, "no such file"),
        (lambda path: path.write_bytes(pickle.dumps({"train": []})), {}, "a Python pickle.*never a pickle"),
        (lambda path: path.write_text("{"), {}, "not a few-shot list"),
        (lambda path: path.write_text('{"train": {"data": [{"label": 1}]}}'), {}, "it lacks 'impath'"),
        (
            lambda path: few_shot_file(path, name="train/{label}_9{number}.jpg"),
            {},
            r"0_90\.jpg is no image of dataset\.train",
        ),
        (
            lambda path: few_shot_file(path, val="train/{label}_1.jpg"),
            {"role": "val"},
            r"is no image of dataset\.val; .* or of another split, which dataset\.val has to name",
        ),
        (lambda path: few_shot_file(path, numbers=(0,)), {}, r"1 images of label 0 where task\.shots=2"),
        (lambda path: few_shot_file(path, labels=(0, 1)), {}, r"0 images of label 2 where task\.shots=2"),
        (lambda path: few_shot_file(path, name="train/0_{number}.jpg"), {}, "has label 1 there and 0 in the data"),
        (few_shot_file, {"protocol": "full"}, r"task\.protocol=full reads all images"),
    ],
)
def test_a_list_that_does_not_fit(tmp_path, read, make, more, message):
    make(tmp_path / "list.json")
    with pytest.raises(UserError, match=rf"dataset\.few_shot_list=.*list\.json: .*{message}"):
        read(**{"protocol": "few_shot", "shots": 2, "few_shot_list": tmp_path / "list.json"} | more)


def test_classes_that_do_not_fit(tmp_path, pets, read):
    folder = shutil.copytree(pets, tmp_path / "pets")
    about = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(about | {"classes": ["cat", "dog"]}))
    with pytest.raises(UserError, match=r"label 2 where manifest\.json names 2 classes"):
        read(folder=folder)
    (folder / "manifest.json").write_text(json.dumps(about | {"classes": []}))
    with pytest.raises(UserError, match="names no classes"):
        read(folder=folder)


def test_templates():
    assert templates("oxford_pets", "first", None) == templates("oxford_pets", "first", TEMPLATE) == [TEMPLATE]
    assert len(templates("imagenet", "ensemble", "a photo of a {}.")) == 80
    assert len(templates("folder", "ensemble", None)) == 7
    assert templates("oxford_pets", "own", "my {}") == templates("folder", "first", "my {}") == ["my {}"]
    assert templates("oxford_pets", "name", TEMPLATE) == ["{}."] and templates("shapes", "name", "a {}") == ["{}"]
    for choice in ("first", "ensemble", "name"):
        with pytest.raises(UserError, match=rf"dataset\.template='my \{{\}}': task\.template={choice} is another one"):
            templates("oxford_pets", choice, "my {}")
    with pytest.raises(UserError, match=r"task\.template=ensemble: no list of ucf101"):
        templates("ucf101", "ensemble", None)


def test_examples_show_an_image_and_its_class(pets):
    examples = open_examples("labelled", pets, ["oxford_pets_test"])
    asked = examples.asked(4, "red fox")
    assert asked.answers == {"Basset Hound": 1.0}
    assert len(asked.shown.images) == 1
    assert examples.said("red fox") == Shown("red fox")
    with pytest.raises(KeyError):
        examples.asked(9, "red fox")


def test_validation_reads_four_of_six(pets, tokenizer, transform):
    more = {"role": "val", "protocol": "few_shot", "shots": 16}
    reader = LabelledImages(pets, ["oxford_pets_train"], tokenizer, transform, **more)
    assert [reader[i]["label"] for i in range(len(reader))] == [0] * 4 + [1] * 4 + [2] * 4


def test_few_shots_of_a_share_are_images_of_it(read):
    share = {"fraction": 0.7, "fraction_seed": 1}
    some, few = read(**share), read(protocol="few_shot", shots=2, **share)
    assert {few[i]["id"] for i in range(len(few))} < {some[i]["id"] for i in range(len(some))}
    assert [few[i]["label"] for i in range(len(few))] == [0, 0, 1, 1, 2, 2]
