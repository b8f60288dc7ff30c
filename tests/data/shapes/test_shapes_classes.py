import json

import numpy as np
import pytest
from PIL import Image

from vltune.data.labelled.reader import LabelledImages
from vltune.data.manifest import fingerprint, read
from vltune.data.shapes import ensure
from vltune.data.shapes.classes import HALVES, SPLIT_FILE, WORLDS
from vltune.data.shapes.layouts import LAYOUTS
from vltune.data.shapes.scenes import POSITIONS
from vltune.data.transforms import SquareResize
from vltune.errors import UserError

CLASSES = {"objects": 30, "places": 54, "textures": 20}


def written(out, world, **more):
    count = CLASSES[world]
    LAYOUTS[world].write(out, images={"train": 2 * count, "val": count, "test": count + 1}, **more)
    return json.loads((out / SPLIT_FILE).read_text())


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("world", WORLDS)
def test_what_is_written(tmp_path, world):
    splits = written(tmp_path, world)
    count = CLASSES[world]
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 2 * count, "val": count, "test": count + 1}
    named = {label: name for rows in splits.values() for _, label, name in rows}
    assert sorted(named) == list(range(count))
    assert len(set(named.values())) == count
    paths = [path for rows in splits.values() for path, *_ in rows]
    assert len(set(paths)) == len(paths)
    assert {str(file.relative_to(tmp_path / "images")) for file in tmp_path.rglob("*.jpg")} == set(paths)
    assert all(label in (0, 1) for _, label, _ in splits["train"][::count] + splits["train"][1::count])


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    made = {name: tmp_path / name for name in ("one", "again", "other")}
    for name, folder in made.items():
        folder.mkdir()
        written(folder, "objects", seed=int(name == "other"))
    one, again, other = (content(folder) for folder in made.values())
    assert one == again
    assert one.keys() == other.keys()
    assert one[SPLIT_FILE] == other[SPLIT_FILE]
    assert all(one[name] != other[name] for name in one if name != SPLIT_FILE)


def words(names):
    return {word for name in names for word in name.split()}


@pytest.mark.parametrize("world", WORLDS)
def test_every_word_of_the_new_classes_is_known_from_the_base(world):
    known = WORLDS[world]
    names = [known.name(*pair) for pair in known.pairs("recombined")]
    half = len(names) // 2
    assert words(names[half:]) == words(names[:half])
    assert not {*names[half:]} & {*names[:half]}


@pytest.mark.parametrize("world", WORLDS)
def test_or_none_is(world):
    known = WORLDS[world]
    pairs = known.pairs("words")
    half = len(pairs) // 2
    assert len(pairs) == {"objects": 12, "places": 24, "textures": 8}[world]
    for which in (0, 1):
        assert not {pair[which] for pair in pairs[:half].tolist()} & {pair[which] for pair in pairs[half:].tolist()}
    assert {*map(tuple, pairs.tolist())} < {*map(tuple, known.pairs(HALVES[0]).tolist())}


def test_another_light_is_brighter_and_noisy(tmp_path):
    seen = {}
    for shift in (0, 1):
        written(tmp_path / str(shift), "places", shift=shift)
        files = sorted((tmp_path / str(shift)).rglob("*.jpg"))
        seen[shift] = np.stack([np.asarray(Image.open(file)) for file in files]).astype(float)
    corner = {shift: pixels[:, -1:, -20:].mean((1, 2, 3)) for shift, pixels in seen.items()}
    assert corner[0].max() < 80 < 85 < corner[1].min() + 10
    rough = {shift: np.abs(np.diff(pixels[:, -1], axis=1)).mean() for shift, pixels in seen.items()}
    assert rough[1] > 5 * rough[0]


def test_places_are_where_the_names_say(tmp_path):
    splits = written(tmp_path, "places", shift=0)
    for path, _, name in splits["train"][:54]:
        pixels = np.asarray(Image.open(tmp_path / "images" / path)).astype(int)
        change = np.abs(pixels - pixels[-1, -1]).sum(2) > 90
        row, column = (int(where.mean()) // 21 for where in np.nonzero(change))
        assert name.endswith(f" object at the {POSITIONS[3 * row + column]}"), path


@pytest.mark.parametrize("world", WORLDS)
def test_runs_read_them_back(tmp_path, tokenizer, world):
    count = CLASSES[world]
    ensure(tmp_path, world, images={"train": 2 * count, "val": count, "test": count}, shift=0)
    folder = tmp_path / world
    listed = json.loads((folder / "raw" / SPLIT_FILE).read_text())
    given = folder, [f"{world}_train"], tokenizer, SquareResize(size=64, mean=[0.5] * 3, std=[0.5] * 3)
    whole = LabelledImages(*given, role="train", own_template="a {}")
    known = WORLDS[world]
    names = [known.name(*pair) for pair in known.pairs(HALVES[0])]
    assert whole.facts["classes"] == names
    assert whole.facts["templates"] == ["a {}"]
    assert [whole[row]["label"] for row in range(len(whole))] == [label for _, label, _ in listed["train"]]
    pixels = np.asarray(Image.open(folder / "raw" / "images" / listed["train"][3][0])).transpose(2, 0, 1)
    assert (whole[3]["image"].numpy() == pixels).all()
    few = LabelledImages(*given, role="train", protocol="base_to_new", shots=1)
    assert sorted(few[row]["label"] for row in range(len(few))) == list(range(count // 2))


def test_worlds_that_are_drawn_otherwise_are_other_data(tmp_path):
    drawn = {"usual": {}, "seed": {"seed": 1}, "light": {"shift": 0}, "both": {"seed": 1, "shift": 0}}
    drawn |= {"halves": {"halves": "words"}}
    for name, more in drawn.items():
        ensure(tmp_path / name, "objects", images={"train": 30, "val": 30, "test": 30}, **more)
    assert len({fingerprint(read(tmp_path / name / "objects")) for name in drawn}) == len(drawn)
    file = tmp_path / "light" / "objects" / "manifest.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "drawn"}))
    with pytest.raises(UserError, match=r"objects/ has a manifest\.json of an older version, .*shift.*; delete it"):
        ensure(tmp_path / "light", "objects", images={"train": 30, "val": 30, "test": 30}, shift=0)


def test_what_is_refused(tmp_path):
    for setting, said in (({"shift": 2}, "shift=2: must be a whole number from 0 to 1"), ({"halves": "x"}, "halves=x")):
        with pytest.raises(UserError, match=f"dataset.generate.{said}"):
            ensure(tmp_path, "objects", **setting)
    ensure(tmp_path, "textures", images={"train": 20, "val": 20, "test": 20})
    with pytest.raises(UserError, match=r"textures/ was generated with .*, not with .*shift 0"):
        ensure(tmp_path, "textures", images={"train": 20, "val": 20, "test": 20}, shift=0)
