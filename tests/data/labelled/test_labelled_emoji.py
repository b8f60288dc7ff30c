"""Emoji of two vendors, made up in the layout of npm's packages."""

import json
from io import BytesIO

import pytest
from PIL import Image

from vltune.data.arrow import open_table
from vltune.data.check.folder import check
from vltune.data.dataset import preparation
from vltune.data.karpathy.reader import Karpathy
from vltune.data.labelled.emoji import on_white
from vltune.data.manifest import find, read
from vltune.errors import BadExampleError, UserError

GROUPS = {"animal-bird": 20, "tool": 25, "few": 19, "country-flag": 30}


@pytest.fixture
def raw(tmp_path):
    listed = []
    for group, count in GROUPS.items():
        category = "Flags" if group == "country-flag" else "Objects"
        for number in range(count + 1):
            there = {"has_img_twitter": True, "has_img_google": number < count}
            named = {"name": f"{group} {number}".upper(), "short_names": [f"{group}_{number}", f"the_{number}"]}
            there |= {"category": category, "subcategory": group}
            listed.append({"image": f"{group}-{number}.png", **named, **there})
    for colour, vendor in enumerate(("twitter", "google")):
        package = tmp_path / "raw" / f"emoji-datasource-{vendor}" / ("package" if colour else "")
        images = package / "img" / vendor / "64"
        images.mkdir(parents=True)
        (package / "emoji.json").write_text(json.dumps(listed))
        for place, each in enumerate(listed):
            image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
            image.paste((place, 100 * colour, 7, 255), (0, 0, 20, 20))
            image.save(images / each["image"])
    return tmp_path / "raw"


def test_captions_and_classes_of_emoji_do_not_share_a_folder(raw, tmp_path):
    """Their files begin alike."""
    preparation("emoji_captions")(raw, tmp_path / "out", progress=False)
    there = sorted(path.name for path in (tmp_path / "out").glob("*.arrow"))
    with pytest.raises(UserError, match="which is not of an earlier run of this command; name another folder"):
        preparation("emoji")(raw, tmp_path / "out", progress=False)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.arrow")) == there


def test_one_vendor_trains_and_the_other_tests(raw, tmp_path):
    preparation("emoji")(raw, tmp_path / "out", progress=False)
    about = read(tmp_path / "out")
    assert about["classes"] == ["animal bird", "tool"]
    one = {"train": 36, "val": 9, "test": 45}
    assert about["images"] == {f"{vendor}_{split}": n for vendor in ("twitter", "google") for split, n in one.items()}
    shown = {
        split: {
            row["image_id"].rpartition("/")[2]
            for file in find(tmp_path / "out", about, f"emoji_{split}").files
            for row in open_table(file, ["image_id"]).to_pylist()
        }
        for split in about["images"]
    }
    assert shown["twitter_train"] == shown["google_train"]
    assert shown["twitter_test"] == shown["google_train"] | shown["google_val"]
    found = check(tmp_path / "out", progress=False, readers=1)
    assert (found.count, found.problems) == (0, [])
    assert found.classes[0].prompt == "a drawing of animal bird."
    assert found.classes[0].images["google_test"] == 20


def test_names_are_captions_for_retrieval(raw, tmp_path, tokenizer, transform):
    counts = preparation("emoji_captions")(raw, tmp_path / "out", progress=False)
    assert counts["twitter_train images"] + counts["twitter_val images"] == counts["google_test images"] == 64
    assert counts["google_train captions"] == 2 * counts["google_train images"]
    assert not check(tmp_path / "out", progress=False, readers=1).count
    reader = Karpathy(tmp_path / "out", ["emoji_caption_karpathy_google_test"], tokenizer, transform)
    assert (len(reader), reader.pictures()) == (128, 64)
    [file] = find(tmp_path / "out", read(tmp_path / "out"), "emoji_caption_karpathy_twitter_train").files
    assert open_table(file, ["caption"])["caption"][0].as_py()[0].startswith("animal-bird ")


def test_what_is_transparent_becomes_white(raw):
    stored = on_white((raw / "emoji-datasource-twitter" / "img" / "twitter" / "64" / "tool-0.png").read_bytes())
    with Image.open(BytesIO(stored)) as image:
        assert (image.mode, image.getpixel((60, 60)), image.getpixel((1, 1))[2]) == ("RGB", (255, 255, 255), 7)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{}", UserError, r"emoji\.json: not a list of emoji"),
        ("[", UserError, r"emoji\.json: not valid JSON"),
        ("[]", UserError, "no subcategory has 20 emoji that both vendors draw"),
        ("[5]", BadExampleError, r"emoji\.json entry 1 .*it is 5, expected an object"),
        ('[{"image": "../a.png"}]', BadExampleError, "expected a name without /"),
    ],
)
def test_a_list_that_is_none(raw, tmp_path, content, error, message):
    (raw / "emoji-datasource-twitter" / "emoji.json").write_text(content)
    with pytest.raises(error, match=message):
        preparation("emoji")(raw, tmp_path / "out", progress=False)


def test_a_package_that_is_missing(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match=r"lacks emoji-datasource-twitter/emoji\.json, .*google/64/; `make emoji`"):
        preparation("emoji")(tmp_path / "raw", tmp_path / "out", progress=False)
