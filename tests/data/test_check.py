"""`vltune check` finds a planted problem of every kind, and none where there is none."""

import json
import re
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from vltune.data.arrow import open_table, write_table
from vltune.data.check.folder import check
from vltune.data.check.rows import NAMED
from vltune.data.karpathy import prepare as karpathy
from vltune.data.nlvr2 import prepare as nlvr2
from vltune.data.shapes import karpathy as shapes_karpathy
from vltune.data.shapes import nlvr2 as shapes_nlvr2
from vltune.data.shapes import snli_ve as shapes_snli_ve
from vltune.data.snli_ve import prepare as snli_ve
from vltune.data.vqav2.reader import VQAv2
from vltune.errors import UserError

ONE = "-00000-of-00001.arrow"
IMAGES = {"train": 8, "val": 4, "test": 4}


def looked_at(folder):
    return check(folder, progress=False)


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    shapes_karpathy.write_raw(folder / "raw", images=IMAGES)
    karpathy.prepare_f30k(folder / "raw", folder / "out", progress=False)
    return folder / "out"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    shapes_nlvr2.write_raw(folder / "raw", images=IMAGES)
    (folder / "raw" / "data" / "balanced").mkdir()
    file = folder / "raw" / "data" / "balanced" / "balanced_dev.json"
    file.write_text((folder / "raw" / "data" / "dev.json").read_text().splitlines()[3] + "\n")
    nlvr2.prepare(folder / "raw", folder / "out", progress=False)
    return folder / "out"


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    shapes_snli_ve.write_raw(folder / "raw", images=IMAGES)
    snli_ve.prepare(folder / "raw", folder / "out", progress=False)
    return folder / "out"


@pytest.fixture
def folders(prepared, pairs, captions, sentences):
    return {"vqav2": prepared, "nlvr2": pairs, "f30k_caption_karpathy": captions, "snli": sentences}


def change(file, edit):
    """Rewrites an Arrow file with what `edit` makes of its rows."""
    table = open_table(file, pa.ipc.open_file(file).schema.names)
    rows = table.to_pylist()
    edit(rows)
    write_table(file, table.schema, [pa.RecordBatch.from_pylist(rows, table.schema)])


def test_nothing_is_wrong_with_what_prepare_writes(folders):
    for stem, folder in folders.items():
        report = looked_at(folder)
        assert (report.count, report.problems, report.notes) == (0, [], [])
        manifest = json.loads((folder / "manifest.json").read_text())
        for line in report.lines:
            assert line.split.startswith(f"{stem}_")
            listed = manifest["splits"][line.split]
            assert line.rows == sum(shard["rows"] for shard in listed) > 0
            assert line.texts == sum(shard["texts"] for shard in listed) > 0
            assert line.bytes == sum((folder / shard["file"]).stat().st_size for shard in listed)


def stored(image, form="PNG", **options):
    held = BytesIO()
    image.save(held, form, **options)
    return held.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return stored(Image.new("RGB", (8, 6), (9, 90, 200)), "JPEG", exif=exif)


def palette(transparent):
    held = Image.new("P", (8, 8), 1)
    held.putpalette([255, 0, 0, 0, 255, 0])
    return stored(held, transparency=transparent)


def ramp(form="PNG"):
    """16 bits of grey."""
    return stored(Image.fromarray(np.linspace(0, 65535, 4096).reshape(64, 64).astype(np.uint16)), form)


ORIENTED, CLEAR, CUT = "an EXIF orientation", "partly transparent", "cut off at 255 and not scaled"
TOLD = {
    "upright": (turned(1), None),
    **{f"turned {orientation}": (turned(orientation), ORIENTED) for orientation in range(2, 9)},
    "turned by none": (turned(9), None),
    "broken EXIF": (stored(Image.new("RGB", (8, 6)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), None),
    "grey": (stored(Image.new("L", (4, 4), 9)), None),
    "two colours": (stored(Image.new("1", (4, 4), 1)), None),
    "CMYK": (stored(Image.new("CMYK", (4, 4)), "JPEG"), None),
    "RGBA": (stored(Image.new("RGBA", (4, 4), (9, 9, 9, 0))), CLEAR),
    "RGBA, opaque": (stored(Image.new("RGBA", (4, 4), (9, 9, 9, 255))), None),
    "LA": (stored(Image.new("LA", (4, 4), (9, 128))), CLEAR),
    "a transparent colour": (palette(1), CLEAR),
    "one that does not occur": (palette(0), None),
    "16 bits": (ramp(), CUT),
    "16 bits, TIFF": (ramp("TIFF"), CUT),
    "32 bits": (stored(Image.new("I", (4, 4), 70_000), "TIFF"), CUT),
    "fractions": (stored(Image.new("F", (4, 4), 0.5), "TIFF"), CUT),
}


@pytest.mark.parametrize(("image", "told"), TOLD.values(), ids=TOLD)
@pytest.mark.parametrize(
    ("stem", "split", "column"),
    [
        ("vqav2", "val", "image"),
        ("nlvr2", "dev", "image_1"),
        ("f30k_caption_karpathy", "test", "image"),
        ("snli", "test", "image"),
    ],
)
def test_what_is_well_to_know_of_an_image_is_told(stem, split, column, image, told, folders, tmp_path):
    file = shutil.copy(folders[stem] / f"{stem}_{split}{ONE}", tmp_path)
    change(Path(file), lambda rows: rows[1].update({column: image}))
    report = check(Path(file), progress=False, readers=1)
    of_image = [note for note in report.notes if not note.startswith("no manifest")]
    if told is CUT:
        assert (report.count, len(report.problems)) == (1, 1)
        assert f"row 1: {column} is of mode" in report.problems[0]
        assert CUT in report.problems[0]
    else:
        assert report.problems == []
        assert [f"{stem}_{split}: 1 image" in note and told in note for note in of_image] == ([True] if told else [])


def other_label(row):
    row["answer_labels"][0][0] = (row["answer_labels"][0][0] + 1) % 5


PLANTED = {
    "broken image": (
        *("vqav2", "val", lambda rows: rows[2].update(image=rows[2]["image"][:300])),
        r"vqav2_val-00000-of-00001\.arrow row 2: image cannot be decoded: .*[Tt]runcated",
    ),
    "no image": (
        *("vqav2", "val", lambda rows: rows[2].update(image=None)),
        r"row 2: image cannot be decoded: an empty file",
    ),
    "label out of range": (
        *("vqav2", "train", lambda rows: rows[7]["answer_labels"][1].__setitem__(0, 3129)),
        r"vqav2_train.* row 7: label 3129 where the vocabulary has \d+ answers",
    ),
    "another answer's label": (
        *("vqav2", "train", lambda rows: other_label(rows[0])),
        r"row 0: label \d for '.+', in the vocabulary it is '.+'",
    ),
    "score": (
        *("vqav2", "train", lambda rows: rows[0]["answer_scores"][0].__setitem__(0, 1.2)),
        r"row 0: score 1\.2 of '.+'",
    ),
    "lists of labels and scores": (
        *("vqav2", "train", lambda rows: rows[0]["answer_scores"][0].append(1.0)),
        r"row 0: answers, labels and scores of a question differ in number",
    ),
    "repeated question": (
        *("vqav2", "train", lambda rows: rows[5]["question_id"].__setitem__(0, rows[4]["question_id"][1])),
        r"vqav2_train: question id \d+ stands 2 times",
    ),
    "lost question id": (
        *("vqav2", "train", lambda rows: rows[5]["question_id"].pop()),
        r"row 5: 4 questions and 3 question ids",
    ),
    "no questions": ("vqav2", "train", lambda rows: rows[5].update(questions=None), r"row 5: a column lacks its value"),
    "no truth value": (
        *("nlvr2", "dev", lambda rows: rows[1]["answers"].__setitem__(2, "true")),
        r"nlvr2_dev.* row 1: answer 'true' is neither 'True' nor 'False'",
    ),
    "second image": (
        *("nlvr2", "dev", lambda rows: rows[1].update(image_1=b"")),
        r"nlvr2_dev.* row 1: image_1 cannot be decoded",
    ),
    "empty caption": (
        *("f30k_caption_karpathy", "test", lambda rows: rows[3]["caption"].__setitem__(0, "")),
        r"f30k_caption_karpathy_test.* row 3: an empty caption",
    ),
    "fourth class": (
        *("snli", "test", lambda rows: rows[3]["labels"].__setitem__(0, 3)),
        r"snli_test.* row 3: label 3 is none of 0, 1, 2",
    ),
    "no hypothesis": (
        *("snli", "test", lambda rows: rows[3]["sentences"][0].pop()),
        r"snli_test.* row 3: a caption without its hypothesis",
    ),
}


@pytest.mark.parametrize(("stem", "split", "plant", "message"), PLANTED.values(), ids=PLANTED)
def test_a_bad_row_is_found_and_named(folders, tmp_path, stem, split, plant, message):
    folder = shutil.copytree(folders[stem], tmp_path / "copy")
    change(folder / f"{stem}_{split}{ONE}", plant)
    assert any(re.search(message, problem) for problem in looked_at(folder).problems)


@pytest.fixture
def copy(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "copy")


def test_rows_that_are_lost(copy):
    change(copy / f"vqav2_train{ONE}", lambda rows: rows.pop())
    assert looked_at(copy).problems == [
        f"vqav2_train{ONE}: 59 rows, manifest.json says 60",
        f"vqav2_train{ONE}: 236 texts, manifest.json says 240",
        "vqav2_train: 59 images, manifest.json says 60",
        "vqav2_train: 236 questions, manifest.json says 240",
    ]


def test_counts_of_the_manifest(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["questions"]["val"] = 7
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert looked_at(copy).problems == ["vqav2_val: 80 questions, manifest.json says 7"]


def test_a_file_that_was_damaged_within_is_told_and_not_read_on(copy, tokenizer, transform):
    """As by a disk: of the same size, with its beginning and end."""
    val = copy / f"vqav2_val{ONE}"
    content = val.read_bytes()
    assert b"what " in content
    val.write_bytes(content.replace(b"what ", b"wha\xff ", 1))
    [damaged, *lost] = looked_at(copy).problems
    assert re.fullmatch(rf"{val}: a damaged Arrow file \(.*UTF8.*\); copy it again, or make it with .*", damaged)
    assert lost[0] == f"vqav2_val{ONE}: 0 rows, manifest.json says 20"
    with pytest.raises(UserError, match=rf"{val}: a damaged Arrow file .*UTF8.*; copy it again"):
        VQAv2(copy, ["vqav2_val"], tokenizer, transform)


def test_files_that_are_lost_spoilt_or_left_over(copy):
    (copy / f"vqav2_test{ONE}").unlink()
    val = copy / f"vqav2_val{ONE}"
    val.write_bytes(val.read_bytes()[:-9])
    shutil.copy(copy / f"vqav2_train{ONE}", copy / "vqav2_train-00007-of-00009.arrow")
    report = looked_at(copy)
    told = "\n".join(report.problems)
    assert re.search(r"vqav2_test-00000-of-00001\.arrow: no such file; .* make it with `vltune prepare`", told)
    assert re.search(r"vqav2_val-00000-of-00001\.arrow: a truncated Arrow file", told)
    assert "vqav2_train-00007-of-00009.arrow: manifest.json does not list it" in told
    assert {line.split: line.problems for line in report.lines} == {
        "vqav2_train": 0,
        "vqav2_val": 3,
        "vqav2_test": 3,
        "vqav2_test-dev": 0,
    }


@pytest.mark.parametrize(("one", "other"), [("train", "test"), ("train", "val"), ("val", "test")])
def test_an_image_in_two_splits(copy, one, other):
    content = open_table(copy / f"vqav2_{one}{ONE}", ["image"])["image"][3].as_py()
    change(copy / f"vqav2_{other}{ONE}", lambda rows: rows[4].update(image=content))
    told = f"vqav2_{other}{ONE} row 4: its image is in {one} too, vqav2_{one}{ONE} row 3"
    assert looked_at(copy).problems == [told]


def test_second_images_are_compared_too(pairs, tmp_path):
    copy = shutil.copytree(pairs, tmp_path / "copy")
    content = open_table(copy / f"nlvr2_train{ONE}", ["image_1"])["image_1"][3].as_py()
    change(copy / f"nlvr2_test1{ONE}", lambda rows: rows[2].update(image_0=content))
    told = f"nlvr2_test1{ONE} row 2: its image is in train too, nlvr2_train{ONE} row 3"
    assert looked_at(copy).problems == [told]


def test_a_subset_beyond_its_split(pairs, tmp_path):
    copy = shutil.copytree(pairs, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["subsets"]["nlvr2_balanced_dev"]["texts"] = [3, 16]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert looked_at(copy).problems == ["nlvr2_balanced_dev: text 16 where nlvr2_dev has 16"]


def test_many_problems_are_counted_and_the_first_named(copy):
    change(copy / f"vqav2_val{ONE}", lambda rows: [row.update(image=b"<html>") for row in rows])
    report = looked_at(copy)
    assert report.count == 20
    assert len(report.problems) == NAMED + 1
    assert report.problems[NAMED - 1].startswith(f"vqav2_val{ONE} row {NAMED - 1}: ")
    assert report.problems[NAMED] == f"vqav2_val{ONE}: and 15 more"


@pytest.fixture
def released(prepared, tmp_path):
    """A folder as ViLT's writers leave it: single files, no manifest, `val` beside its parts."""
    for split, parts in {
        "train": ["train"],
        "trainable_val": ["val"],
        "val": ["val", "test"],
        "rest_val": ["test"],
    }.items():
        tables = [pa.ipc.open_file(prepared / f"vqav2_{part}{ONE}").read_all() for part in parts]
        batches = [batch for table in tables for batch in table.to_batches()]
        write_table(tmp_path / "released" / f"vqav2_{split}.arrow", tables[0].schema, batches)
    return tmp_path / "released"


def test_files_of_others(released):
    shutil.copy(released / "vqav2_train.arrow", released / "gcc_train_0.arrow")
    report = looked_at(released)
    assert report.problems == []
    assert report.notes == [
        "no manifest.json: labels are held against 3,129 answers, counts against none",
        "not looked at, of no data set known here: gcc_train_0.arrow",
    ]
    change(released / "vqav2_train.arrow", lambda rows: rows[0]["answer_labels"][0].__setitem__(0, 3129))
    assert looked_at(released / "vqav2_rest_val.arrow").count == 0
    for path in (released, released / "vqav2_train.arrow"):
        assert looked_at(path).problems == [
            "vqav2_train.arrow row 0: label 3129 where the vocabulary has 3129 answers",
        ]


def test_meter_writes_coco_without_the_column_split(captions, tmp_path):
    """And without a file for restval, whose images are in train."""
    table = open_table(captions / f"f30k_caption_karpathy_train{ONE}", ["image", "caption", "image_id"])
    write_table(tmp_path / "coco_caption_karpathy_train.arrow", table.schema, table.to_batches())
    report = looked_at(tmp_path)
    assert (report.problems, report.lines[0].texts) == ([], 40)
    write_table(
        tmp_path / "coco_caption_karpathy_train.arrow", table.schema.remove(0), table.drop_columns("image").to_batches()
    )
    [problem] = looked_at(tmp_path).problems
    assert (
        "coco_caption_karpathy_train.arrow: lacks the column image; it has caption, image_id; make it with" in problem
    )


def test_nothing_to_check(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such file or folder; make it with `vltune prepare`"):
        looked_at(tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"nothing to check; expected a folder of `vltune prepare`, or one of f30k_caption_karpathy_\*"
    ):
        looked_at(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: not valid JSON .*; delete it and run `vltune prepare` again"):
        looked_at(tmp_path)


def test_the_command_prints_a_table_and_fails_where_anything_is_wrong(copy):
    def run():
        vltune = Path(sys.executable).parent / "vltune"
        return subprocess.run([vltune, "check", copy, "--readers", "2"], capture_output=True, text=True)

    done = run()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "all is well")
    change(copy / f"vqav2_val{ONE}", lambda rows: rows[3].update(image=b""))
    done = run()
    assert done.returncode == 1
    rows = [line.split() for line in done.stdout.splitlines() if "vqav2_val " in line]
    [[_, split, _, count, _, texts, _, size, _, problems, _]] = rows
    assert (split, count, texts, problems) == ("vqav2_val", "20", "80", "1")
    assert size == f"{(copy / f'vqav2_val{ONE}').stat().st_size:,}"
    assert done.stdout.splitlines()[-1] == "1 problem"
    assert f"vqav2_val{ONE} row 3: image cannot be decoded: an empty file" in done.stdout
