"""Folders of subjects become Arrow files, and what is wrong with one is told in a line."""

import json
import os
import re
import shutil

import pytest
from PIL import Image
from subject_trees import CLASSES, COUNTS, listing, paint, tree

from vltune.data import manifest
from vltune.data.arrow import open_table
from vltune.data.check.folder import check
from vltune.data.subjects.prepare import prepare
from vltune.data.subjects.prompts import published
from vltune.data.subjects.rows import FEW, described
from vltune.errors import BadExampleError, UserError

# The thirty of the official list.
OFFICIAL = {
    "backpack": "backpack",
    "backpack_dog": "backpack",
    "bear_plushie": "stuffed animal",
    "berry_bowl": "bowl",
    "can": "can",
    "candle": "candle",
    "cat": "cat",
    "cat2": "cat",
    "clock": "clock",
    "colorful_sneaker": "sneaker",
    **{f"dog{number}": "dog" for number in ("", 2, 3, 5, 6, 7, 8)},
    "duck_toy": "toy",
    "fancy_boot": "boot",
    "grey_sloth_plushie": "stuffed animal",
    "monster_toy": "toy",
    "pink_sunglasses": "glasses",
    "poop_emoji": "toy",
    "rc_car": "toy",
    "red_cartoon": "cartoon",
    "robot_toy": "toy",
    "shiny_sneaker": "sneaker",
    "teapot": "teapot",
    "vase": "vase",
    "wolf_plushie": "stuffed animal",
}


def prepared(raw, out, **more):
    return prepare(raw, out, progress=False, **more)


def rows(out, subject):
    [shard] = manifest.read(out)["splits"][f"dreambooth_{subject}"]
    return open_table(out / shard["file"], ["image", "image_id", "split"]).to_pylist()


def refused(raw, message, error=UserError, **more):
    out = raw.parent / "out"
    with pytest.raises(error, match=message) as told:
        prepared(raw, out, **more)
    assert "\n" not in str(told.value)
    assert not out.exists()


@pytest.mark.parametrize("place", ["", "dataset"])
def test_the_repository_and_its_folder_of_pictures(place, tmp_path, capsys):
    raw, out = tree(tmp_path / "raw"), tmp_path / "out"
    counts = prepared(raw / place, out)
    assert counts == {f"{subject} images": count for subject, count in COUNTS.items()} | {"unreadable images": 0}
    found = described(manifest.read(out))
    assert {name: each.noun for name, each in found.items()} == CLASSES
    assert {name for name, each in found.items() if each.live} == {"dog", "dog6"}
    assert found["dog"].prompts == published()["live"]
    assert found["bear_plushie"].prompts == published()["object"]
    assert [row["image_id"] for row in rows(out, "dog6")] == [f"dog6/0{number}.jpg" for number in range(4)]
    assert rows(out, "dog6")[1]["image"] == (raw / "dataset" / "dog6" / "01.jpg").read_bytes()
    assert capsys.readouterr().err == ""


def test_all_thirty_of_the_official_list(tmp_path):
    raw = tree(tmp_path / "raw", listing(OFFICIAL), dict.fromkeys(OFFICIAL, 1))
    assert len(prepared(raw, tmp_path / "out")) == 31
    found = described(manifest.read(tmp_path / "out")).values()
    assert (len(found), sum(each.live for each in found)) == (30, 9)
    assert {len(each.prompts) for each in found} == {25}


def test_the_published_prompts():
    lists = published()
    assert [len({*texts}) for texts in lists.values()] == [25, 25]
    assert len({*lists["object"]} & {*lists["live"]}) == 15
    assert all(text.count("{token} {class}") == 1 for texts in lists.values() for text in texts)


def test_prompts_are_read_and_never_run(tmp_path):
    found = {"object": ["a {token} with a \"sign\" and a 'hat'"], "live": ["{token} {class}, wet"]}
    raw = tree(tmp_path / "raw", listing(prompts=found))
    prepared(raw, tmp_path / "out")
    assert manifest.read(tmp_path / "out")["prompts"] == found
    code = listing(prompts={"object": ["a {token}"], "live": ["a {token}"]}).replace("'a {0}'", "print('a {0}')")
    refused(
        tree(tmp_path / "other" / "raw", code),
        r"prompts_and_classes\.txt line \d+ \(not an official DreamBooth entry: it is \"print\(.*, expected '\.\.\.",
        BadExampleError,
    )


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("dog6,dog", "dog6,", 'its class is "", expected a word such as dog'),
        ("dog6,dog", "dog6", 'it is "dog6", expected subject_name,class'),
        ("dog6,dog", "dog6,dog,live", 'it is "dog6,dog,live", expected'),
        ("dog6,dog", "../dog6,dog", r'its subject is "\.\./dog6", expected a name'),
        ("dog6,dog", "dog6,dog\ndog6,cat", r'"dog6" is at .*prompts_and_classes\.txt line 7 already'),
        ("'a wet {0} {1}'", "'a wet dog'", r'"a wet dog" has no \{0\}, so that nothing in it says which'),
        ("'a wet {0} {1}'", "'a wet {0} {2}'", r'"a wet \{0\} \{2\}" has a brace that is of neither'),
        ("'a wet {0} {1}'", "'a red {0} {1}'", r'"a red \{token\} \{class\}" is at .* line \d+ already'),
        ("Classes", "Subjects", 'it is "Subjects", under none of the headings Classes, Object Prompts'),
    ],
)
def test_a_wrong_line_of_the_list(line, instead, message, tmp_path):
    text = listing().replace(line, instead, 1)
    refused(tree(tmp_path / "raw", text), rf"raw: .*prompts_and_classes\.txt line \d+ .*{message}", BadExampleError)


def test_a_list_that_is_something_else(tmp_path):
    refused(tree(tmp_path / "raw", "<!DOCTYPE html>"), r"prompts_and_classes\.txt: a web page, not the file itself")
    (tmp_path / "raw" / "dataset" / "prompts_and_classes.txt").write_text("Classes\n\nsubject_name,class\n")
    refused(tmp_path / "raw", r"prompts_and_classes\.txt: has no line under Classes; add one for each subject")


def test_a_list_that_is_missing(tmp_path):
    raw = tree(tmp_path / "raw")
    (raw / "dataset" / "prompts_and_classes.txt").unlink()
    refused(raw, r"raw: lacks prompts_and_classes\.txt; clone https.* or say what your own pictures show with --class")
    live = listing(prompts={"object": published()["object"]})
    refused(tree(tmp_path / "raw", live), r"prompts_and_classes\.txt: has no Live Subject Prompts, which dog needs")


def test_a_subject_without_a_class_a_folder_or_a_picture(tmp_path):
    raw = tree(tmp_path / "raw")
    paint(raw / "dataset" / "vase" / "00.jpg", 0)
    refused(raw, r"dataset/vase: a subject without a class; add the line vase,CLASS to .*prompts_and_classes\.txt")
    shutil.rmtree(raw / "dataset" / "vase")
    shutil.rmtree(raw / "dataset" / "dog6")
    refused(raw, r"dataset/dog6: no such folder, and .*prompts_and_classes\.txt has the subject dog6; fetch it again")
    (raw / "dataset" / "dog6").mkdir()
    (raw / "dataset" / "dog6" / "._00.jpg").write_text("left by a Mac")
    refused(raw, r"dataset/dog6: holds no picture \(\.jpg, .*\.tiff\); put some there")
    (raw / "dataset" / "dog6" / "IMG_1.heic").write_text("x")
    refused(raw, r"dog6: holds no picture \(.*\), but IMG_1\.heic; put some there")


@pytest.mark.parametrize(
    ("broken", "why"),
    [(lambda whole: b"<html>", "a web page"), (lambda whole: whole[: len(whole) // 2], "a JPEG image that cannot")],
)
def test_an_unreadable_picture_is_told_before_any_run(broken, why, tmp_path):
    raw = tree(tmp_path / "raw")
    picture = raw / "dataset" / "dog6" / "02.jpg"
    picture.write_bytes(broken(picture.read_bytes()))
    refused(raw, rf"1 bad image .*: dataset/dog6/02\.jpg \({why}", BadExampleError)
    assert prepared(raw, tmp_path / "out", max_bad=1)["dog6 images"] == 3


def test_a_folder_of_ones_own(tmp_path, capsys):
    raw = tmp_path / "Mein Hündchen (1)"
    for number in range(3):
        paint(raw / f"{number}.PNG", number)
    (raw / "notes.txt").write_text("x")
    counts = prepared(raw, tmp_path / "out", noun="dog")
    name = "Mein_Hundchen_1"
    assert counts == {f"{name} images": 3, f"{name} dropped other files": 1, "unreadable images": 0}
    found = described(manifest.read(tmp_path / "out"))[name]
    assert (found.noun, found.live, found.prompts) == ("dog", True, published()["live"])
    assert capsys.readouterr().err == ""
    prepared(raw, tmp_path / "out", noun="toy horse")
    assert described(manifest.read(tmp_path / "out"))[name].prompts == published()["object"]
    prepared(raw, tmp_path / "out", noun="horse", live=True)
    assert described(manifest.read(tmp_path / "out"))[name].prompts == published()["live"]


def test_other_pictures_of_the_same_names_are_prepared_anew(tmp_path):
    for number, folder in enumerate(("a", "b")):
        paint(tmp_path / folder / "rex" / "0.png", number)
        prepared(tmp_path / folder / "rex", tmp_path / "out", noun="dog")
        assert rows(tmp_path / "out", "rex")[0]["image"] == (tmp_path / folder / "rex" / "0.png").read_bytes()


def test_subjects_of_other_raw_files_are_not_lost(tmp_path):
    raw, rex = tree(tmp_path / "raw"), tmp_path / "rex"
    paint(rex / "0.png", 0)
    prepared(raw, tmp_path / "out")
    with pytest.raises(UserError, match=r"out: holds backpack_dog, .*, dog6, which would be lost; name another folder"):
        prepared(rex, tmp_path / "out", noun="dog")
    prepared(rex, tmp_path / "own", noun="dog")
    with pytest.raises(UserError, match=r"own: holds rex, which would be lost; name another folder"):
        prepared(raw, tmp_path / "own")
    (tmp_path / "own" / "manifest.json").write_text("{")
    prepared(raw, tmp_path / "own")


def test_a_tree_is_not_lost_to_another_tree(tmp_path):
    out, counts = tmp_path / "out", {"cup1": 1, "cup2": 1}
    one = tree(tmp_path / "one", listing({"cup1": "cup", "cup2": "cup"}), counts)
    other = tree(tmp_path / "other", listing({"hat1": "hat"}), {"hat1": 1})
    prepared(one, out)
    with pytest.raises(UserError, match=r"out: holds cup1, cup2, which would be lost; name another folder"):
        prepared(other, out)
    shutil.rmtree(one / "dataset" / "cup2")
    (one / "dataset" / "prompts_and_classes.txt").write_text(listing({"cup1": "cup"}))
    assert prepared(one, out) == {"cup1 images": 1, "unreadable images": 0}
    with pytest.raises(UserError, match="nowhere: no such folder"):
        prepared(tmp_path / "nowhere", out)


def test_one_picture_is_told_and_kept(tmp_path, capsys):
    paint(tmp_path / "rex" / "0.png", 0)
    assert prepared(tmp_path / "rex", tmp_path / "out", noun="dog")["rex images"] == 1
    assert capsys.readouterr().err == f"{tmp_path / 'out'}: rex: {FEW}\n"
    assert f"subject rex: {FEW}" in check(tmp_path / "out", progress=False, readers=1).notes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"noun": " "}, r"--class  : its class is \" \", expected a word such as dog"),
        ({"noun": "{class}"}, r"--class \{class\}: its class is"),
        ({"live": True}, r"--live: is of --class; add that, or leave it out"),
        ({"live": False}, r"--no-live: is of --class"),
    ],
)
def test_options_that_say_nothing(more, message, tmp_path):
    paint(tmp_path / "raw" / "0.png", 0)
    refused(tmp_path / "raw", message, **more)


def test_a_class_beside_a_list_of_classes(tmp_path):
    raw = tree(tmp_path / "raw")
    refused(
        raw, r"--class dog: .*prompts_and_classes\.txt says what its subjects are; leave the option out", noun="dog"
    )
    refused(tmp_path / "none", r"none: no such folder; --raw names the one", noun="dog")


def test_a_picture_whose_name_is_not_in_utf_8(tmp_path):
    paint(tmp_path / "rex" / os.fsdecode(b"h\xfcndchen.png"), 0)
    refused(tmp_path / "rex", r"rex/h\\udcfcndchen\.png: its name is not in UTF-8; rename it", noun="dog")


def test_a_picture_that_a_camera_stored_turned_is_stored_upright(tmp_path):
    whole = Image.open(paint(tmp_path / "rex" / "0.png", 0, (24, 20)))
    turned = Image.Exif()
    turned[0x0112] = 6  # its top is at the right
    whole.save(tmp_path / "rex" / "1.png", exif=turned)
    prepared(tmp_path / "rex", tmp_path / "out", noun="dog")
    upright = tmp_path / "upright.png"
    upright.write_bytes(rows(tmp_path / "out", "rex")[1]["image"])
    with Image.open(upright) as found:
        assert found.size == (20, 24)
        assert found.tobytes() == whole.transpose(Image.Transpose.ROTATE_270).tobytes()
    assert not [note for note in check(tmp_path / "out", progress=False, readers=1).notes if "EXIF" in note]


def test_what_check_says(tmp_path):
    prepared(tree(tmp_path / "raw"), tmp_path / "out")
    found = check(tmp_path / "out", progress=False, readers=1)
    assert not found.count
    assert {line.split: line.rows for line in found.lines} == {f"dreambooth_{name}": n for name, n in COUNTS.items()}
    assert "subject dog6, dog (live): 4 pictures, 25 prompts such as 'a {token} dog in the jungle'" in found.notes
    assert any(note.startswith("subject bear_plushie, stuffed animal (an object): 2 pict") for note in found.notes)
    about = manifest.read(tmp_path / "out")
    about["images"]["dog6"] = 5
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(about))
    assert check(tmp_path / "out", progress=False, readers=1).problems == [
        "dreambooth_dog6: 4 images, manifest.json says 5"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subjects": {"dog6": {"class": "dog"}}}, "its subject dog6 does not tell its class, whether it is live, and"),
        ({"subjects": {"dog6": "dog"}}, "its subject dog6 does not tell"),
        ({"prompts": {"object": []}}, "its subject backpack_dog does not tell"),
        ({"prompts": {"object": "a", "live": []}}, "its prompts of object are no list of texts"),
        ({"subjects": []}, "its subjects is no object"),
    ],
)
def test_a_manifest_that_was_written_to(change, message, tmp_path):
    prepared(tree(tmp_path / "raw"), tmp_path / "out")
    file = tmp_path / "out" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=re.escape(message)):
        manifest.read(tmp_path / "out")


def test_a_second_time_nothing_is_read_again(tmp_path, capsys):
    raw = tree(tmp_path / "raw")
    counts = prepared(raw, tmp_path / "out")
    made = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert prepared(raw, tmp_path / "out") == counts
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == made
