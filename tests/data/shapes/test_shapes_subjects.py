"""Subjects of the world in google/dreambooth's raw tree."""

import filecmp

import numpy as np
import pytest
from PIL import Image

from vltune.data import manifest
from vltune.data.arrow import open_table
from vltune.data.shapes import ensure
from vltune.data.shapes.looks import PICTURES, PROMPTS, SUBJECTS
from vltune.data.shapes.quarters import PAINTS, TEXTURES
from vltune.data.shapes.scenes import COLOURS, SHAPES
from vltune.data.shapes.subjects import write_raw
from vltune.data.shapes.vocabulary import VOCABULARY

WORDS = {*VOCABULARY.read_text().split()}


def test_eight_subjects_differ_in_shape_texture_or_colours():
    assert len(SUBJECTS) == len({*SUBJECTS.values()}) == 8
    for name, look in SUBJECTS.items():
        assert look.noun in SHAPES and look.texture in TEXTURES[1:]
        assert {look.colour, look.second} <= {*PAINTS[len(COLOURS) :]}
        assert name == f"{look.texture}_{look.noun}"
    assert {look.noun for look in SUBJECTS.values()} == {*SHAPES}
    assert {look.texture for look in SUBJECTS.values()} == {*TEXTURES[1:]}


def test_prompts_are_in_the_worlds_words():
    assert len({*PROMPTS}) == 12
    assert all("{0} {1}" in prompt and {*prompt.format("z", "square").split()} <= WORDS for prompt in PROMPTS)


def test_the_tree(tmp_path):
    write_raw(tmp_path)
    folder = tmp_path / "dataset"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {*SUBJECTS}
    for subject in SUBJECTS:
        files = sorted(folder.joinpath(subject).iterdir())
        assert [file.name for file in files] == [f"{number:02d}.png" for number in range(5)]
        assert {Image.open(file).size for file in files} == {(32, 32)}
    listed = (folder / "prompts_and_classes.txt").read_text()
    assert "\nbanded_square,square\n" in listed
    assert "\n'a small {0} {1}'.format(unique_token, class_token),\n" in listed


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_raw(tmp_path / name, seed=seed)
    files = [f"dataset/{subject}/{number:02d}.png" for subject in SUBJECTS for number in range(5)]
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)[0] == files
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)[0] == []


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_is_large_and_in_every_quarter(subject, tmp_path):
    write_raw(tmp_path, images=dict.fromkeys(PICTURES, 0) | {subject: 4})
    found = [np.asarray(Image.open(path)).astype(int) for path in sorted((tmp_path / "dataset" / subject).iterdir())]
    bright = np.stack([(picture.max(2) > 190).reshape(2, 16, 2, 16).sum((1, 3)).flatten() for picture in found])
    assert sorted(bright.argmax(1).tolist()) == [0, 1, 2, 3]
    assert ((bright > 30).sum(1) == 1).all()


def test_the_world_is_prepared_as_dreambooths_is(tmp_path):
    ensure(tmp_path, "dreambooth")
    folder = tmp_path / "dreambooth"
    about = manifest.read(folder)
    assert about["images"] == dict.fromkeys(SUBJECTS, 5)
    assert about["subjects"]["checked_star"] == {"class": "star", "live": False}
    assert about["prompts"]["object"] == [prompt.format("{token}", "{class}") for prompt in PROMPTS]
    assert len(open_table(folder / "dreambooth_banded_cross-00000-of-00001.arrow", [])) == 5
    ensure(tmp_path, "dreambooth")
