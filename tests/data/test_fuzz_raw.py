"""Raw files that hold anything: what is written in comes out, or is refused by name and counted; nothing else is raised.

FUZZ_EXAMPLES=5000 tries so many new ones of each data set; without it, a few that are always the same.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import pytest
from fuzzed import (
    IMAGES,
    SUBTYPES,
    expect_karpathy,
    expect_nlvr2,
    expect_snli_ve,
    expect_vqav2,
    karpathy,
    karpathy_files,
    nlvr2,
    snli_ve,
    vqav2,
)
from hypothesis import HealthCheck, given, settings

from vltune.data.arrow import open_table
from vltune.data.check.folder import check
from vltune.data.karpathy.prepare import prepare_coco, prepare_f30k
from vltune.data.karpathy.reader import Karpathy
from vltune.data.nlvr2.prepare import ANSWERS
from vltune.data.nlvr2.prepare import prepare as prepare_nlvr2
from vltune.data.nlvr2.reader import NLVR2Reader
from vltune.data.snli_ve.prepare import prepare as prepare_snli_ve
from vltune.data.snli_ve.reader import SNLIVEReader
from vltune.data.transforms import MinMaxResize
from vltune.data.vqav2.prepare import prepare as prepare_vqav2
from vltune.data.vqav2.reader import VQAv2
from vltune.errors import BadExampleError, UserError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
fuzzed = settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[*HealthCheck],
)


class Letters:
    """A tokenizer of which every text can be told."""

    size, fingerprint = 0x110000, "letters"

    def many(self, texts):
        return [[*map(ord, text)] for text in texts]


@dataclass
class Kind:
    """texts: of a row, each with what is to be answered.  answer: the same as the reader tells it of a text."""

    stem: str
    prepare: Callable
    reader: type
    texts: Callable
    answer: Callable


class Raw:
    """A raw folder with images, each of its own content, whose other files change from example to example."""

    def __init__(self, folder, paint, images):
        self.folder, self.outs = folder / "raw", (folder / f"out-{number}" for number in count())
        for number, name in enumerate(sorted(images)):
            paint(self.folder / name, number, (6, 5))
        self.name_of = {(self.folder / name).read_bytes(): name for name in images}
        self.files = []

    def write(self, files):
        for path in self.files:
            path.unlink()
        self.files = [self.folder / name for name in files]
        for path, content in zip(self.files, files.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def compared(self, kind, files, expected):
        """Prepares the files and holds all that comes of them against what is expected."""
        self.write(files)
        out, more = next(self.outs), {"progress": False, "readers": 1}
        more |= {"min_answer_count": 1} if kind.reader is VQAv2 else {}
        try:
            if expected.refused or len({*files.values()}) < len(files):
                with pytest.raises(UserError) as error:
                    kind.prepare(self.folder, out, max_bad=10**6, **more)
                assert str(error.value).isprintable()
                assert str(self.folder) in str(error.value)
                assert not out.exists()
                return
            counts = kind.prepare(self.folder, out, max_bad=10**6, **more)
            if bad := len(expected.bad) + len(expected.missing):
                with pytest.raises(BadExampleError) as error:
                    kind.prepare(self.folder, out, max_bad=bad - 1, **more)
                assert str(error.value).isprintable()
            assert (counts.get("bad entries", 0) + counts["unreadable images"]) == bad
            self.compare(kind, out, expected)
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def compare(self, kind, out, expected):
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest.get("bad_entries", {}).keys() == expected.bad
        assert manifest["bad_images"].keys() == expected.missing
        for what, numbers in expected.dropped.items():
            told = manifest.get(what, {})
            assert {split: told.get(split, 0) for split in numbers} == dict(numbers), what
        for split, rows in expected.rows.items():
            stem = f"{kind.stem}_{split}"
            if stem in manifest["splits"]:
                [shard] = manifest["splits"][stem]
                found = open_table(out / shard["file"], manifest["columns"]).to_pylist()
                held = [self.held(kind, row) for row in found]
                assert held == rows
                if len(rows) > 1:
                    assert self.read(kind, out, stem) == [(image, *text) for image, texts in rows for text in texts]
            else:
                assert manifest["subsets"][stem]["texts"] == rows
        report = check(out, progress=False, readers=1)
        assert all(": its image is in " in problem or problem.endswith(" more") for problem in report.problems)

    def held(self, kind, row):
        """The first image of a row and its texts."""
        images = [self.name_of[content] for content in row.values() if isinstance(content, bytes)]
        assert [name.replace("-img1.", "-img0.") for name in images] == images[:1] * len(images)
        return images[0], kind.texts(row)

    def read(self, kind, out, split):
        """The same by the reader of runs: image, text and answer of each of its texts."""
        reader = kind.reader(out, [split], Letters(), MinMaxResize(32, 32, 16))
        row_of = reader._index["row"]
        return [
            (self.name_of[bytes(reader.content(int(row_of[i])))], "".join(map(chr, reader.token_ids(i))), *answer)
            for i in range(len(reader))
            for answer in [kind.answer(reader, reader.about(i, None))]
        ]


@pytest.fixture(scope="module")
def raw(request, tmp_path_factory, paint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)  # it takes longer than all else
        yield Raw(tmp_path_factory.mktemp("fuzz"), paint, request.param)


def images(names):
    return pytest.mark.parametrize("raw", [names], indirect=True, ids=["raw"])


def questions(row):
    """Text, id, {answer: score} and whether there are answers at all."""
    labelled = row["answers"] != []
    nothing = [[]] * len(row["questions"])
    given = zip(row["answers"] or nothing, row["answer_scores"] or nothing, strict=True)
    scores = [dict(zip(*each, strict=True)) for each in given]
    return [(*each, labelled) for each in zip(row["questions"], row["question_id"], scores, strict=True)]


def answers(reader, about):
    words = [reader.answers[label] for label in about["answer_labels"]]
    return about["id"], dict(zip(words, about["answer_scores"], strict=True)), about["labelled"]


VQA = Kind("vqav2", prepare_vqav2, VQAv2, questions, answers)


@images([f"{name}/COCO_{name}_{image:012d}.jpg" for name in {*SUBTYPES.values()} for image in range(1, IMAGES + 1)])
@fuzzed
@given(files=vqav2())
def test_vqav2(raw, files):
    raw.compared(VQA, files, expect_vqav2(files))


PAIRS = Kind(
    "nlvr2",
    prepare_nlvr2,
    NLVR2Reader,
    lambda row: [*zip(row["questions"], row["answers"], [row["identifier"]] * len(row["answers"]), strict=True)],
    lambda reader, about: (ANSWERS[about["label"]], about["pair"]),
)


@images(
    [
        f"{folder}/{split}-{a}-{b}-img{side}.png"
        for split, folder in {"train": "images/train/0", "dev": "dev", "test1": "test1"}.items()
        for a in range(2)
        for b in range(2)
        for side in range(2)
    ]
)
@fuzzed
@given(files=nlvr2())
def test_nlvr2(raw, files):
    raw.compared(PAIRS, files, expect_nlvr2(files))


def captions(row):
    return [(caption,) for caption in row["caption"]]


F30K = Kind("f30k_caption_karpathy", prepare_f30k, Karpathy, captions, lambda reader, about: ())
COCO = Kind("coco_caption_karpathy", prepare_coco, Karpathy, captions, lambda reader, about: ())


@images(karpathy_files("f30k"))
@fuzzed
@given(files=karpathy("f30k"))
def test_f30k(raw, files):
    raw.compared(F30K, files, expect_karpathy("f30k", files))


@images(karpathy_files("coco"))
@fuzzed
@given(files=karpathy("coco"))
def test_coco(raw, files):
    raw.compared(COCO, files, expect_karpathy("coco", files))


SENTENCES = Kind(
    "snli",
    prepare_snli_ve,
    SNLIVEReader,
    lambda row: [(pair[1].strip(), label) for pair, label in zip(row["sentences"], row["labels"], strict=True)],
    lambda reader, about: (about["label"],),
)


@images([f"flickr30k-images/{name}.jpg" for name in ("3", "train1", "train2", "dev1", "dev2", "test1", "test2")])
@fuzzed
@given(files=snli_ve())
def test_snli_ve(raw, files):
    raw.compared(SENTENCES, files, expect_snli_ve(files))
