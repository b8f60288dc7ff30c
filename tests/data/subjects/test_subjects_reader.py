"""A subject's pictures as a run reads them, from the command line on."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from composed import composed
from subject_trees import CLASSES, COUNTS, paint, tree
from typer.testing import CliRunner

from vltune.assemble.data import data_folder
from vltune.cli import app
from vltune.data.collate import Collate
from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.subjects.prepare import prepare
from vltune.data.subjects.prompts import published
from vltune.data.subjects.reader import SubjectPictures
from vltune.data.subjects.rows import FEW
from vltune.data.tokenizer import Tokenizer
from vltune.data.transforms import SquareResize
from vltune.errors import UserError

CONF = Path(__file__).parents[3] / "conf"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subjects")
    prepare(tree(folder / "raw"), folder / "out", progress=False)
    return folder / "out"


@pytest.fixture
def read(out):
    def open_(subject="dog6", folder=out, **more):
        return SubjectPictures(
            folder, [f"dreambooth_{subject}"], Tokenizer(VOCABULARY, 20), SquareResize(16), role="train", **more
        )

    return open_


def test_an_example_is_a_picture(read):
    found = read()
    assert [example["id"] for example in found] == [0, 1, 2, 3]
    assert {key: type(value) for key, value in found[2].items()} == {"id": int, "image": torch.Tensor}
    batch = Collate(0, (0.5,) * 3, (0.5,) * 3)([found[0], found[3]])
    assert batch["image"].shape == (2, 3, 16, 16)
    assert batch["image"].abs().max() <= 1
    assert found.may_be_few
    assert found.pictures() == 4


@pytest.mark.parametrize("subject", CLASSES)
def test_what_is_known_of_a_subject(subject, read):
    found = read(subject)
    assert len(found) == COUNTS[subject]
    assert found.facts["noun"] == CLASSES[subject]
    assert found.facts["prompts"] == published()["live" if CLASSES[subject] == "dog" else "object"]
    assert {*found.facts} == {*SubjectPictures.gives}


def test_an_unknown_subject_is_told_with_all_there_are(read, out):
    with pytest.raises(UserError) as told:
        read("dgo6")
    names = "backpack_dog, bear_plushie, dog, dog6"
    assert str(told.value) == f"dataset.subject=dgo6: {out} has no such subject; did you mean dog6? there are {names}"
    with pytest.raises(UserError, match=r"dreambooth_dog6, dreambooth_dog are of several subjects; name the split of"):
        SubjectPictures(out, ["dreambooth_dog6", "dreambooth_dog"], Tokenizer(VOCABULARY, 20), SquareResize(16))


def test_a_folder_that_is_of_no_subjects(read, tmp_path, out):
    with pytest.raises(
        UserError, match=r"dreambooth_dog6\.arrow: no such file; expected an Arrow file with the columns"
    ):
        read(folder=tmp_path)
    [shard] = json.loads((out / "manifest.json").read_text())["splits"]["dreambooth_dog6"]
    shutil.copy(out / shard["file"], tmp_path / "dreambooth_dog6.arrow")
    with pytest.raises(
        UserError, match=r"has no manifest\.json that says what is shown; make it with `vltune prepare`"
    ):
        read(folder=tmp_path)


def test_prompts_of_ones_own(read, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeffa {token}  {class} asleep\n\n{token} alone\n", encoding="utf-8")
    found = read(own_prompts=file)
    assert found.facts["prompts"] == ["a {token} {class} asleep", "{token} alone"]
    assert found.fingerprint != read().fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"a {token}\na {class}\n",
            r'line 2: "a \{class\}" has no \{token\}, so that nothing in it says which subject',
        ),
        (b"a {token} {noun}\n", r'line 1: "a \{token\} \{noun\}" has a brace that is of neither \{token\} nor'),
        (b"a {token}\n\na  {token}\n", r'line 3: "a \{token\}" is at line 1 already'),
        (b"\n", "holds no prompt"),
        (b"", "holds no prompt"),
        (b"\xff\xfea\0", "a text in UTF-16, not a text of prompts"),
        (b"a {token} \xe9", "it is not in UTF-8"),
        (None, "no such file, where a text of prompts belongs"),
    ],
)
def test_prompts_that_are_none(content, message, read, tmp_path):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        UserError, match=rf"dataset\.prompts=.*prompts\.txt: {message}.*; write a line such as 'a \{{to"
    ):
        read(own_prompts=file)


def test_the_fingerprint_is_of_the_subject_alone(read, tmp_path):
    fewer = {"dog6": COUNTS["dog6"]}
    text = "\n".join(["Classes", "subject_name,class", "dog6,dog", "Live Subject Prompts"])
    text += "".join(
        f"\n{prompt.replace('{token}', '{0}').replace('{class}', '{1}')!r}.format(unique_token, class_token),"
        for prompt in published()["live"]
    )
    prepare(tree(tmp_path / "raw", text, fewer), tmp_path / "out", progress=False)
    assert read(folder=tmp_path / "out").fingerprint == read().fingerprint
    paint(tmp_path / "raw" / "dataset" / "dog6" / "03.jpg", 0)
    prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    assert read(folder=tmp_path / "out").fingerprint != read().fingerprint
    assert read("dog").fingerprint != read().fingerprint


def test_one_picture_trains_with_a_line(read, tmp_path, capsys):
    paint(tmp_path / "rex" / "0.png", 0)
    prepare(tmp_path / "rex", tmp_path / "out", noun="dog", progress=False)
    capsys.readouterr()
    assert len(read("rex", folder=tmp_path / "out")) == 1
    assert capsys.readouterr().err == f"dataset.subject=rex: {FEW}\n"


def test_the_commands(tmp_path):
    for number in range(2):
        paint(tmp_path / "rex" / f"{number}.png", number)
    arguments = ["prepare", "dreambooth", "--raw", tmp_path / "rex", "--class", "dog", "--no-live"]
    done = CliRunner().invoke(app, [*map(str, [*arguments, "--out", tmp_path / "out"])])
    assert done.stdout == "rex images: 2\nunreadable images: 0\n"
    checked = CliRunner().invoke(app, ["check", str(tmp_path / "out")])
    assert checked.exit_code == 0
    assert (
        "subject rex, dog (an object): 2 pictures, 25 prompts such as 'a {token} dog in the jungle'" in checked.stdout
    )


def test_the_configuration_names_a_subjects_split():
    dataset = composed("dataset=dreambooth", "dataset.subject=vase", "dataset.data_dir=somewhere")["dataset"]
    assert (dataset["train"], dataset["val"], dataset["test"]) == (["dreambooth_vase"], [], ["dreambooth_vase"])
    assert data_folder(dataset) == Path("somewhere")
