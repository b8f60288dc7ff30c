"""Every layout of labelled images becomes the same files, and what is wrong with one is told in a line."""

import json
import os
import re
import shutil
import time

import pytest
from labelled_layouts import COUNTS, aircraft, imagenet, official, paint, split_json, tree
from PIL import Image

from vltune.data.arrow import open_table
from vltune.data.check.folder import check
from vltune.data.dataset import kinds, preparation, preparations
from vltune.data.labelled.published import PUBLISHED
from vltune.data.manifest import fingerprint
from vltune.data.preparation import pipeline
from vltune.errors import BadExampleError, UserError

NAMES = ["tabby cat", "Basset Hound", "red fox"]


def prepared(name, raw, out, **more):
    return preparation(name)(raw, out, progress=False, **more)


def manifest(out):
    return json.loads((out / "manifest.json").read_text())


def rows(out, split):
    [shard] = manifest(out)["splits"][split]
    return open_table(out / shard["file"], ["image", "label", "image_id", "split"]).to_pylist()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_official_layout(name, tmp_path, capsys):
    raw = official(name, tmp_path / "raw")
    counts = prepared(name, raw, tmp_path / "out")
    about, train = manifest(tmp_path / "out"), rows(tmp_path / "out", f"{name}_train")
    splits = {"train": 8, "test": 8} if name == "imagenet" else {split: 3 * count for split, count in COUNTS.items()}
    assert about["images"] == splits
    assert counts == {f"{split} images": count for split, count in splits.items()} | {"unreadable images": 0}
    assert about["data_set"] == name
    if name == "imagenet":
        assert about["classes"] == ["great white shark", "red fox"]
        assert [row["image_id"] for row in train[:1]] == ["train/n01/n01_0.JPEG"]
    elif name == "fgvc_aircraft":
        assert about["classes"] == ["707-320", "727-200", "A300B4"]
        assert train[0]["label"] == 1
        assert train[0]["image_id"] == "0000000.jpg"
    else:
        assert about["classes"] == NAMES
        assert [row["label"] for row in train] == [0] * 6 + [1] * 6 + [2] * 6
    folder = raw / PUBLISHED[name].root[0]
    found = next(path for path in folder.rglob("*") if path.as_posix().endswith(train[0]["image_id"]))
    assert train[0]["image"] == found.read_bytes()
    told = capsys.readouterr().err
    assert f"{PUBLISHED[name].title} has {PUBLISHED[name].classes}" in told
    for split, count in PUBLISHED[name].counts.items():
        assert (
            (f"{split} images, {PUBLISHED[name].title} has {count:,}" in told) == (count is not None) if count else True
        )
    assert not check(tmp_path / "out", progress=False, readers=1).count


def test_the_folder_itself_does_as_well_and_so_does_another_name_for_it(tmp_path):
    for number, (root, images) in enumerate([("", "jpg"), ("flowers-102", "jpg"), ("flowers102", "flowers-102/jpg")]):
        raw = tmp_path / str(number)
        split_json(raw / root, "split_zhou_OxfordFlowers.json", images)
        prepared("flowers102", raw, tmp_path / f"out{number}")
        assert manifest(tmp_path / f"out{number}")["classes"] == NAMES


def test_what_is_missing_is_told_with_the_names_of_mirrors(tmp_path):
    (tmp_path / "raw").mkdir()
    told = (
        r"lacks split_zhou_Caltech101\.json, 101_ObjectCategories/; put CoOp's .* or caltech101/101_ObjectCategories/"
    )
    with pytest.raises(UserError, match=told):
        prepared("caltech101", tmp_path / "raw", tmp_path / "out")


def test_the_first_image_that_is_missing_is_named(tmp_path):
    raw = official("dtd", tmp_path / "raw")
    for number in (1, 2):
        (raw / "dtd" / "images" / f"train/0_{number}.jpg").unlink()
    with pytest.raises(BadExampleError, match=r"2 bad images .*: images/train/0_1\.jpg \(missing\), images/train/0_2"):
        prepared("dtd", raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    counts = prepared("dtd", raw, tmp_path / "out", max_bad=2)
    assert (counts["train images"], counts["unreadable images"]) == (16, 2)


def test_a_pickle_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"shot_1-seed_1\.pkl: a pickle, which is never read"):
        prepared("dtd", tmp_path / "shot_1-seed_1.pkl", tmp_path / "out")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"path": "a"},
            r"entry 19 of train \(not an official image list entry: it is an object, expected a list of path",
        ),
        (["a.jpg", 0], "it is a list, expected a list of path, label and class name"),
        (["../a.jpg", 0, "tabby_cat"], r'its path is "\.\./a\.jpg", expected a place inside its folder'),
        (["train/0_0.jpg", 0, "tabby_cat"], r'"train/0_0\.jpg" is at .*entry 1 already'),
        (["val/0_0.jpg", -1, "tabby_cat"], "its label is -1, expected a whole number"),
        (["val/0_0.jpg", 0, "dog"], 'label 0 is "dog", and "tabby cat" before'),
        (["val/0_0.jpg", 0, "_"], 'its class name is "_"'),
    ],
)
def test_a_bad_entry_of_a_split(tmp_path, entry, message):
    raw = official("dtd", tmp_path / "raw") / "dtd"
    file = raw / "split_zhou_DescribableTextures.json"
    found = json.loads(file.read_text())
    found["train"].append(entry)
    file.write_text(json.dumps(found))
    with pytest.raises(BadExampleError, match=message):
        prepared("dtd", raw, tmp_path / "out")


def test_a_label_without_a_class(tmp_path):
    raw = official("dtd", tmp_path / "raw") / "dtd"
    file = raw / "split_zhou_DescribableTextures.json"
    file.write_text(file.read_text().replace(", 1, ", ", 7, "))
    with pytest.raises(UserError, match="no image of label 1, of 3 classes"):
        prepared("dtd", raw, tmp_path / "out")


def test_classes_of_one_name_are_told(tmp_path, capsys):
    raw = official("dtd", tmp_path / "raw") / "dtd"
    file = raw / "split_zhou_DescribableTextures.json"
    file.write_text(file.read_text().replace("red_fox", "tabby cat"))
    prepared("dtd", raw, tmp_path / "out")
    told = "classes share a name, so that no text tells them apart: tabby cat"
    assert told in capsys.readouterr().err
    assert told in check(tmp_path / "out", progress=False, readers=1).notes


def test_an_aircraft_of_no_class(tmp_path):
    aircraft(tmp_path / "raw")
    file = tmp_path / "raw" / "images_variant_val.txt"
    file.write_text(file.read_text() + "0000000 Concorde\n")
    with pytest.raises(
        BadExampleError, match=r'images_variant_val\.txt line 7 .*its class is "Concorde", none of variants'
    ):
        prepared("fgvc_aircraft", tmp_path / "raw", tmp_path / "out")


def test_a_folder_of_imagenet_without_a_name(tmp_path):
    imagenet(tmp_path / "raw")
    paint(tmp_path / "raw" / "images" / "val" / "n09" / "a.JPEG", 1)
    with pytest.raises(UserError, match=r"val/n09: a class that classnames\.txt lacks"):
        prepared("imagenet", tmp_path / "raw", tmp_path / "out")


def names(out, split):
    return {row["image_id"] for row in rows(out, f"folder_{split}")}


def test_ones_own_folders_with_splits(tmp_path):
    raw = tree(tmp_path / "raw")
    (raw / "train" / "red_fox" / "Thumbs.db").write_bytes(b"no image")
    counts = prepared("folder", raw, tmp_path / "out")
    about = manifest(tmp_path / "out")
    assert about["images"] == {"train": 18, "val": 6, "test": 9}
    assert about["classes"] == ["Basset Hound", "red fox", "tabby cat"]
    assert counts["train dropped other files"] == 1
    assert {row["image_id"] for row in rows(tmp_path / "out", "folder_val")} == {
        path.relative_to(raw).as_posix() for path in (raw / "val").rglob("*.png")
    }
    assert not check(tmp_path / "out", progress=False, readers=1).count


def test_what_is_prepared_already_is_said(tmp_path, capsys):
    raw = tree(tmp_path / "raw")
    first = prepared("folder", raw, tmp_path / "out")
    made = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert preparation("folder")(raw, tmp_path / "out") == first
    assert "prepared before, and no raw file changed since" in capsys.readouterr().err
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == made


def test_another_folder_is_another_preparation_however_old_it_is(tmp_path):
    one, other = tree(tmp_path / "one"), tree(tmp_path / "other", classes=("bird", "fish"))
    prepared("folder", one, tmp_path / "out")
    later = time.time_ns() + 10**12
    os.utime(tmp_path / "out" / "manifest.json", ns=(later, later))
    prepared("folder", other, tmp_path / "out")
    assert manifest(tmp_path / "out")["classes"] == ["bird", "fish"]


def test_other_pixels_in_as_many_bytes_are_other_data(tmp_path):
    raw, found = tmp_path / "raw", []
    for shade in (10, 200):
        for number in range(6):
            file = raw / ("cat", "dog")[number % 2] / f"{number}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (shade, number, 0)).save(file)
        prepared("folder", raw, tmp_path / "out")
        found.append(manifest(tmp_path / "out"))
    assert found[0]["listing"] == found[1]["listing"]
    assert fingerprint(found[0]) != fingerprint(found[1])
    prepared("folder", shutil.copytree(raw, tmp_path / "copy"), tmp_path / "out")
    assert fingerprint(manifest(tmp_path / "out")) == fingerprint(found[1])


@pytest.mark.parametrize("given", ["", "list.csv"])
def test_a_folder_inside_the_raw_one_is_not_made_again(given, tmp_path, capsys):
    raw = tree(tmp_path / "raw")
    if given:
        lines = [f"{path.relative_to(raw)},{path.parent.name}\n" for path in sorted(raw.rglob("*.png"))]
        (raw / given).write_text("path,class\n" + "".join(lines))
    prepared("folder", raw / given, raw / "prepared")
    (raw / "prepared" / ".index").mkdir()
    preparation("folder")(raw / given, raw / "prepared")
    assert "prepared before, and no raw file changed since" in capsys.readouterr().err
    paint(raw / "train" / "red_fox" / "another.png", 7)
    preparation("folder")(raw / given, raw / "prepared")
    assert "prepared before" not in capsys.readouterr().err


def test_what_programs_put_beside_images_is_none_of_a_class(tmp_path):
    raw = tree(tmp_path / "raw")
    for hidden in (".thumbnails/fox.png", "@eaDir/fox.png/small.png", "__MACOSX/fox.png", "._fox.png"):
        paint(raw / "train" / "red_fox" / hidden, 7)
    paint(raw / "train" / "@eaDir" / "a.png" / "small.png", 7)
    paint(raw / "__MACOSX" / "a.png", 7)
    (raw / "._list.csv").write_bytes(b"\0")
    counts = prepared("folder", raw, tmp_path / "out")
    assert counts["train images"] == 18
    assert counts["train dropped other files"] == 4


@pytest.mark.parametrize("linked", ["train", "train/red_fox"])
def test_an_image_that_was_added_behind_a_link_is_seen(linked, tmp_path):
    raw = tree(tmp_path / "raw")
    (raw / linked).rename(tmp_path / "elsewhere")
    (raw / linked).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (raw / "train" / "tabby_cat" / "round").symlink_to(raw, target_is_directory=True)
    assert prepared("folder", raw, tmp_path / "out")["train images"] == 18
    paint(raw / "train" / "red_fox" / "another.png", 7)
    assert prepared("folder", raw, tmp_path / "out")["train images"] == 19


def test_an_image_behind_a_link_inside_a_class_is_its_and_none_behind_a_link_to_what_holds_it(tmp_path):
    raw = tree(tmp_path / "raw")
    paint(tmp_path / "elsewhere" / "another.png", 7)
    (raw / "train" / "red_fox" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (raw / "train" / "red_fox" / "up").symlink_to(raw / "train", target_is_directory=True)
    (raw / "train" / "red_fox" / "here").symlink_to(raw / "train" / "red_fox", target_is_directory=True)
    assert prepared("folder", raw, tmp_path / "out")["train images"] == 19
    assert "train/red_fox/more/another.png" in names(tmp_path / "out", "train")


def test_a_name_that_is_not_in_utf_8_is_one_line(tmp_path):
    raw = tree(tmp_path / "raw")
    paint(raw / "train" / "red_fox" / os.fsdecode(b"f\xfcchse.png"), 7)
    with pytest.raises(UserError) as told:
        prepared("folder", raw, tmp_path / "out")
    assert str(told.value).endswith(r"train/red_fox/f\udcfcchse.png: its name is not in UTF-8; rename it")


def test_what_changed_while_a_preparation_was_stopped_is_seen(tmp_path, monkeypatch):
    raw, out = tree(tmp_path / "raw"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepared("folder", raw, out)
    paint(raw / "train" / "red_fox" / "another.png", 7)
    assert prepared("folder", raw, out)["train images"] == 19


def test_what_changed_during_a_preparation_is_seen_the_next_time(tmp_path, monkeypatch):
    raw, out, write = tree(tmp_path / "raw"), tmp_path / "out", pipeline._write

    def written(*args):
        paint(raw / "train" / "red_fox" / "another.png", 7)
        return write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_write", written)
        assert prepared("folder", raw, out)["train images"] == 18
    assert prepared("folder", raw, out)["train images"] == 19


def interrupted(*args):
    raise KeyboardInterrupt


def test_splits_may_be_capitalised(tmp_path):
    raw = tree(tmp_path / "raw")
    for split, name in (("train", "Train"), ("val", "Validation"), ("test", "TEST")):
        (raw / split).rename(raw / name)
    prepared("folder", raw, tmp_path / "out")
    assert manifest(tmp_path / "out")["images"] == {"train": 18, "val": 6, "test": 9}


def test_a_class_may_be_called_as_a_split_is(tmp_path):
    for name in ("bus", "car", "train"):
        for number in range(10):
            paint(tmp_path / "raw" / name / f"{number}.png", number)
    prepared("folder", tmp_path / "raw", tmp_path / "out")
    assert manifest(tmp_path / "out")["classes"] == ["bus", "car", "train"]


@pytest.mark.parametrize(
    ("splits", "below", "told"),
    [
        (("val", "test"), "", "raw: no image lies in test/ or val/ itself, as those of a class do; call splits train/"),
        (("training_set", "test_set"), "", "raw: no image lies in test_set/ or training_set/ itself"),
        (
            ("train", "test"),
            "archive",
            "raw: no image lies in archive/ itself, .* the folder that they are in with --raw",
        ),
    ],
)
def test_splits_are_not_taken_for_classes(splits, below, told, tmp_path):
    tree(tmp_path / "raw" / below, splits)
    with pytest.raises(UserError, match=told) as error:
        prepared("folder", tmp_path / "raw", tmp_path / "out")
    assert "\n" not in str(error.value)


def test_images_in_no_class_are_counted_and_a_single_class_is_told(tmp_path, capsys):
    raw = tree(tmp_path / "raw", classes=("red_fox",))
    for loose in ("0.png", "train/1.png", "train/2.JPG", "val/3.png", "test/._4.png"):
        paint(raw / loose, 7)
    counts = prepared("folder", raw, tmp_path / "out")
    assert [counts[f"{split} dropped other files"] for split in COUNTS] == [3, 1, 0]
    assert "out: all images are of one class, red fox, so that there is nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("another", "told"),
    [
        ("dev/red_fox", "raw/dev: a class beside train/, which holds classes; move it into a split"),
        ("wolf", "raw/wolf: a class beside train/, which holds classes; move it into a split"),
        ("validation/red_fox", "holds val/ and validation/, both of val; leave one of them there"),
    ],
)
def test_what_would_be_left_unread_beside_splits_is_told(another, told, tmp_path):
    raw = tree(tmp_path / "raw")
    paint(raw / another / "a.png", 7)
    with pytest.raises(UserError, match=told):
        prepared("folder", raw, tmp_path / "out")


def test_a_class_folder_may_have_spaces_and_its_name_comes_from_the_list(tmp_path):
    raw = tree(tmp_path / "raw", classes=("my cat", "my cat b", "_"))
    (raw / "classnames.txt").write_text("my cat feline\nmy cat b kitten\n_ nameless\n")
    prepared("folder", raw, tmp_path / "out")
    assert manifest(tmp_path / "out")["classes"] == ["nameless", "feline", "kitten"]


@pytest.mark.parametrize(
    ("classes", "listed", "told"),
    [
        (("cat", "_"), None, 'its class name is "_"'),
        (("cat", "dog"), "cat feline\nwolf grey\n", "begins with no folder of a class that is there"),
        (("cat", "dog"), "cat tabby\ndog hound\ncat lion\n", "cat is listed twice"),
    ],
)
def test_classes_that_cannot_be_told_or_named(classes, listed, told, tmp_path):
    raw = tree(tmp_path / "raw", classes=classes)
    if listed:
        (raw / "classnames.txt").write_text(listed)
    with pytest.raises(UserError, match=re.escape(told)):
        prepared("folder", raw, tmp_path / "out")


def test_an_image_that_a_table_lists_twice_is_bad(tmp_path):
    raw = tree(tmp_path / "raw", splits=())
    found = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*.png"))
    rows = [f"{path},{path.split('/')[0]}" for path in found] + [f"{found[0]},{found[0].split('/')[0]}"]
    (raw / "list.csv").write_text("path,class\n" + "\n".join(rows) + "\n")
    with pytest.raises(BadExampleError, match="is listed twice"):
        prepared("folder", raw, tmp_path / "out")


def test_a_list_may_say_what_classes_are_called(tmp_path):
    raw = tree(tmp_path / "raw", classes=("n01", "n02"))
    (raw / "classnames.txt").write_text("n01 great_white shark\n")
    prepared("folder", raw, tmp_path / "out")
    assert manifest(tmp_path / "out")["classes"] == ["great white shark", "n02"]


def test_ones_own_folders_without_splits_are_divided_by_names_alone(tmp_path):
    raw = tree(tmp_path / "raw", splits=())
    prepared("folder", raw, tmp_path / "out")
    assert manifest(tmp_path / "out")["images"] == {"train": 15, "val": 6, "test": 9}
    split = {each: names(tmp_path / "out", each) for each in COUNTS}
    assert len(set.union(*split.values())) == 30
    (raw / "red_fox" / "20.png").unlink()
    prepared("folder", raw, tmp_path / "again")
    moved = {each: names(tmp_path / "again", each) - split[each] for each in COUNTS}
    assert sum(map(len, moved.values())) <= 2


@pytest.mark.parametrize(
    ("splits", "images"),
    [
        (("train", "test"), {"train": 15, "val": 3, "test": 9}),
        (("train", "val"), {"train": 15, "val": 3, "test": 6}),
        (("training", "valid"), {"train": 24, "val": 6, "test": 30}),
    ],
)
def test_a_split_that_is_left_out(tmp_path, splits, images):
    prepared("folder", tree(tmp_path / "raw", splits), tmp_path / "out")
    assert manifest(tmp_path / "out")["images"] == images
    assert not names(tmp_path / "out", "train") & names(tmp_path / "out", "val")


@pytest.mark.parametrize("split", [False, True])
def test_a_table(tmp_path, split):
    raw = tree(tmp_path / "raw")
    lines = [
        (path.relative_to(raw).as_posix(), f'"{path.parent.name}"', path.parts[-3])
        for path in sorted(raw.rglob("*.png"))
    ]
    head = ["path,class,split"] if split else ["path,class"]
    (raw / "list.csv").write_text("\n".join(head + [",".join(line if split else line[:2]) for line in lines]) + "\n")
    for number, given in enumerate((raw, raw / "list.csv")):
        out = tmp_path / str(number)
        prepared("folder", given, out)
        assert manifest(out)["classes"] == ["Basset Hound", "red fox", "tabby cat"]
        assert manifest(out)["images"] == {"train": 18, "val": 6, "test": 9}
    assert "list.csv" in manifest(tmp_path / "0")["sources"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("file,label\na,b\n", UserError, "its first line is 'file,label', expected path,class"),
        ("path,class,Split\na.png,b,train\n", UserError, r"its first line is 'path,class,Split', .* and nothing else"),
        ("path,class,subset\na.png,b,train\n", UserError, "expected path,class"),
        ("path,class,class\na.png,b,c\n", UserError, "its first line is 'path,class,class', expected"),
        ("path,class\ra.png,b\r", UserError, r"list\.csv: not a table \(its lines end as those of old Macs\); save it"),
        ("path,class" + "s" * 140_000 + "\n", UserError, r"list\.csv: not a table \(field larger than"),
        ("path,class\na.png\n", BadExampleError, r"list\.csv line 2 .*it has 1 values, expected 2"),
        ("path,class\na\0.png,b\n", BadExampleError, r"list\.csv line 2 "),
        ("path,class\n,b\n", BadExampleError, "its path is"),
        ("path,class\na.png,\n", BadExampleError, "its class is empty"),
        ("path,class,split\na.png,b,dev\n", BadExampleError, 'its split is "dev", none of train, val, test'),
        ("path,class,split\na.png,b,train\n", UserError, "has images of train alone"),
        ("path,class\na.png,b\nc.png,b\n", UserError, "2 images of b, which three splits cannot share"),
        ("path,class\n", UserError, "holds no image of any class"),
        (
            "path,class,split\na.png,b,train\nc.png,B,test\n",
            UserError,
            "test has images of B, a class that train lacks; call it as there",
        ),
    ],
)
def test_a_bad_table(tmp_path, text, error, message):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "list.csv").write_text(text)
    with pytest.raises(error, match=message):
        prepared("folder", tmp_path / "raw", tmp_path / "out")


def test_a_table_in_capitals_with_spaces_and_a_list_of_names_beside_it(tmp_path, capsys):
    raw = tree(tmp_path / "raw", splits=(), classes=("cat", "dog"))
    files = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*.png"))
    lines = [f'{file}{" " * (n % 2)}, {" " * (n % 3)}"{file[:3]}"\n' for n, file in enumerate(files)]
    (raw / "LIST.CSV").write_text("path, class\n" + "".join(lines))
    (raw / "classnames.txt").write_text("cat feline\n")
    for number, given in enumerate((raw, raw / "LIST.CSV")):
        out = tmp_path / str(number)
        prepared("folder", given, out)
        assert manifest(out)["classes"] == ["cat", "dog"]
        assert sum(manifest(out)["images"].values()) == 20
        assert capsys.readouterr().err == f"{out}: classnames.txt is not read: LIST.CSV names the classes\n"


def test_folders_that_do_not_fit(tmp_path):
    raw = tree(tmp_path / "raw")
    shutil.copytree(raw / "val" / "red_fox", raw / "val" / "wolf")
    with pytest.raises(UserError, match=r"val/wolf: a class that train/ lacks"):
        prepared("folder", raw, tmp_path / "out")
    with pytest.raises(UserError, match="holds train/ alone"):
        prepared("folder", tree(tmp_path / "alone", ("train",)), tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none: holds no folder of a class"):
        prepared("folder", tmp_path / "none", tmp_path / "out")
    (tmp_path / "none" / "wolf").mkdir()
    with pytest.raises(UserError, match="wolf: a class without an image"):
        prepared("folder", tmp_path / "none", tmp_path / "out")
    (tmp_path / "none" / "a.csv").touch()
    (tmp_path / "none" / "b.csv").touch()
    with pytest.raises(UserError, match=r"holds a\.csv and b\.csv"):
        prepared("folder", tmp_path / "none", tmp_path / "out")


def test_another_image_of_the_same_name_is_another_data_set(tmp_path):
    raw = tree(tmp_path / "raw")
    prepared("folder", raw, tmp_path / "one")
    (raw / "train" / "red_fox" / "5.png").unlink(missing_ok=True)
    file = next((raw / "train" / "red_fox").glob("*.png"))
    paint(file.with_suffix(".bmp"), 1)
    prepared("folder", raw, tmp_path / "other")
    assert manifest(tmp_path / "one")["listing"] != manifest(tmp_path / "other")["listing"]


def test_all_are_known_to_prepare_and_check():
    assert {*PUBLISHED, "folder", "emoji"} <= {*preparations()} & {*kinds()}
    assert len(PUBLISHED) == 11
