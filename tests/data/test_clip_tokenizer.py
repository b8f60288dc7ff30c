"""CLIP's tokenizer against ids that open_clip's own gave, and what it makes of what is no vocabulary."""

import gzip
import json
from hashlib import sha256
from pathlib import Path

import pytest

from vltune.data.tokenizer import ClipTokenizer, FilledClipTokenizer
from vltune.errors import UserError
from vltune.weights.finding import locate

MERGES = locate("pkg://vltune/weights/bpe_simple_vocab_16e6.txt.gz")
PINNED = json.loads((Path(__file__).parent / "clip_ids.json").read_text(encoding="utf-8"))  # open_clip_torch 3.3.0


@pytest.fixture(scope="module")
def clip():
    return ClipTokenizer(MERGES, 77)


def test_ids_are_those_of_open_clip(clip):
    assert len(PINNED) > 50
    assert clip("hello world") == [49406, 3306, 1002, 49407]
    assert clip.many(list(PINNED)) == list(PINNED.values())
    assert [clip(text) for text in PINNED] == list(PINNED.values())


def test_attributes(clip):
    assert (clip.size, clip.cls_id, clip.sep_id, clip.pad_id, clip.mask_id) == (49408, 49406, 49407, 0, 0)


def test_a_long_text_keeps_its_end(clip):
    ids = clip("dog " * 100)
    assert (len(ids), ids[0], ids[-1]) == (77, 49406, 49407)
    assert ClipTokenizer(MERGES, 5)("a photo of a cat") == [*clip("a photo of")[:-1], 49407]
    with pytest.raises(UserError, match="max_length=2: a text needs at least 3 tokens"):
        ClipTokenizer(MERGES, 2)


def test_no_text_spells_the_end(clip):
    assert clip("a <|endoftext|> b <|startoftext|>").count(49407) == 1


def test_the_fingerprint_tells_lengths_apart(clip):
    assert clip.fingerprint == ClipTokenizer(MERGES, 77).fingerprint != ClipTokenizer(MERGES, 76).fingerprint


def test_the_shipped_file_is_the_published_one():
    digest = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
    assert sha256(MERGES.read_bytes()).hexdigest() == digest
    assert digest in MERGES.with_name("bpe_simple_vocab_16e6.license.txt").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such vocabulary file"),
        (b"#version\ni n\n", "not CLIP's merges in a gzip archive"),
        (MERGES.read_bytes()[:5000], "not CLIP's merges in a gzip archive"),
        (gzip.compress(b"\xff\xfe\n\xff"), "not CLIP's merges in a gzip archive"),
        (gzip.compress(b"#version\n"), "there are none"),
        (gzip.compress(b"#version\ni n g\n"), "i n g is no pair"),
        (gzip.compress(b"#version\nin g\n"), "not CLIP's merges"),
    ],
)
def test_what_is_no_vocabulary(tmp_path, content, message):
    path = tmp_path / "merges.txt.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"merges\.txt\.gz: .*{message}.*comes with the package"):
        ClipTokenizer(path, 77)


@pytest.mark.parametrize(("padding", "id"), [("<|endoftext|>", 49407), ("!", 0)])
def test_stable_diffusions_texts_are_filled_to_the_whole_length(clip, padding, id):
    ids = clip("a photo of a dog")
    assert FilledClipTokenizer(MERGES, padding, 77)("a photo of a dog") == [*ids, *[id] * (77 - len(ids))]
