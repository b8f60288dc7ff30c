"""`vltune check --weights`: what the small CLIP tells of the toy world's objects, with their classes right and wrong."""

import json
import re
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from vltune.cli import app
from vltune.data.dataset import preparation
from vltune.data.labelled.shots import spread
from vltune.data.manifest import MANIFEST
from vltune.data.shapes.classes import write_objects
from vltune.experiment.zero_shot import ZeroShotCheck, of_classes

MINI = "pkg://vltune/weights/clip_mini.safetensors"


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    write_objects(folder / "raw", images={"train": 30, "val": 30, "test": 120}, shift=0)
    preparation("objects")(folder / "raw", folder / "out", progress=False)
    return folder / "out"


def changed(folder, out, edit):
    """A copy of a prepared folder with what `edit` makes of its manifest."""
    shutil.copytree(folder, out)
    found = json.loads((out / MANIFEST).read_text())
    edit(found)
    (out / MANIFEST).write_text(json.dumps(found))
    return out


def check(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments), "--readers", "1"])


def told(result):
    assert result.exit_code == 0, result.output
    line = r"^zero-shot accuracy: (\S+) % of (\d+) images of (\S+), where chance is (\S+) %$"
    found = re.search(line, result.stdout, re.M)
    return float(found[1]), int(found[2]), found[3], float(found[4])


def test_the_right_list_is_far_above_chance_and_a_wrong_order_is_not(objects, tmp_path):
    right = check(objects, "--weights", MINI)
    accuracy, images, split, chance = told(right)
    assert (images, split, chance) == (120, "objects_test", 3.33)
    assert accuracy > 10 * chance
    assert "near chance" not in right.stdout
    wrong = check(changed(objects, tmp_path / "wrong", lambda found: found["classes"].reverse()), "--weights", MINI)
    assert told(wrong)[0] < 2 * chance
    assert "near chance: these names stand in another order than the labels" in wrong.stdout
    assert len(re.findall(r"^class .*: 0 of 4 right, taken for \w+ \w+ \(\d\)$", wrong.stdout, re.M)) == 5


def test_so_many_images_evenly_over_classes(objects, tmp_path):
    assert told(check(objects, "--weights", MINI, "--images", 60))[1] == 60
    wrong = changed(objects, tmp_path / "wrong", lambda found: found["classes"].reverse())
    found = ZeroShotCheck(wrong, MINI)(60, progress=False)
    assert {each.images for each in found.worst} == {2}


def test_the_validation_takes_the_place_of_a_test_that_there_is_not(objects, tmp_path):
    without = changed(objects, tmp_path / "without", lambda found: found["splits"].pop("objects_test"))
    for file in without.glob("objects_test-*.arrow"):
        file.unlink()
    assert ZeroShotCheck(without, MINI).splits == ["objects_val"]


def test_a_template_of_ones_own(objects):
    other = check(objects, "--weights", MINI, "--template", "no such word {} {}")
    assert other.exit_code == 2
    assert "must hold {} once" in other.stderr
    assert told(check(objects, "--weights", MINI, "--template", "a {}")) == told(check(objects, "--weights", MINI))


def test_without_weights_it_is_said_how(objects):
    assert "add --weights W, a CLIP, for its zero-shot accuracy" in check(objects).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere.pt"], "weights=nowhere.pt: no such file"),
        (["--weights", "pkg://vltune/weights/vilt_mini.safetensors"], "Vilt has no embed_text"),
        (["--weights", MINI, "--activation", "gelu"], "--activation gelu: these weights have relu; leave it out"),
        (["--template", "a {}"], "--template a {}: is of --weights; add these, or leave it out"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_before_any_work(objects, arguments, message):
    result = check(objects, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_where_the_configurations_are_not_it_is_said(objects, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = check(objects, "--weights", MINI)
    assert result.exit_code == 2
    assert "clip_mini.safetensors: what it is stands in conf/backbone, which is not here; type this in" in result.stderr


def test_a_folder_of_other_data(tmp_path):
    result = check(tmp_path, "--weights", MINI)
    assert result.stderr == f"error: --weights {MINI}: {tmp_path} is no folder of labelled images; leave it out\n"


def test_turns_go_around_the_classes():
    names, labels = [f"{number}.png" for number in range(12)], np.array([0] * 9 + [1] * 2 + [2])
    assert np.bincount(labels[spread(names, labels, 5)]).tolist() == [2, 2, 1]
    assert np.bincount(labels[spread(names, labels, 7)]).tolist() == [4, 2, 1]
    assert {*spread(names, labels, 5)} < {*spread(names, labels, 7)}
    assert len(spread(names, labels, 100)) == 12


def test_a_class_is_taken_for_what_most_of_its_images_are():
    rows = [{"class": "cat", "prediction": said} for said in ("dog", "cat", "fox", "fox")]
    [found] = of_classes([*rows, {"class": "dog", "prediction": "dog"}])
    assert (found.name, found.right, found.images, found.taken_for, found.times) == ("cat", 1, 4, "fox", 2)


def test_the_worst_classes_are_first_and_of_equally_bad_ones_the_largest():
    right = {"cat": (3, 4), "dog": (1, 2), "fox": (2, 4), "hen": (0, 1), "owl": (5, 5)}
    rows = [
        {"class": name, "prediction": name if number < good else "ant"}
        for name, (good, images) in right.items()
        for number in range(images)
    ]
    assert [each.name for each in of_classes(rows)] == ["hen", "fox", "dog", "cat"]
