import shutil

import pytest
from transformers import BertTokenizerFast

from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.tokenizer import Tokenizer
from vltune.errors import UserError


def test_like_transformers_bert(tmp_path):
    shutil.copy(VOCABULARY, tmp_path / "vocab.txt")
    theirs = BertTokenizerFast.from_pretrained(tmp_path)
    ours = Tokenizer(VOCABULARY, 12)
    for text in ("What color is the large circle?", "a zebra, quite ÉLÉGANT", "", "\u4e2d 5", "red " * 30):
        assert ours(text) == theirs(text, truncation=True, max_length=12).input_ids


def test_attributes(tokenizer):
    lines = VOCABULARY.read_text().splitlines()
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.size) == (0, lines.index("[MASK]"), len(lines))
    ids = tokenizer("what color is the large circle?")
    assert [lines[i] for i in ids] == ["[CLS]", "what", "color", "is", "the", "large", "circle", "?", "[SEP]"]


def test_truncates_before_sep(tokenizer):
    ids = tokenizer("red " * 40)
    assert len(ids) == 20
    assert ids[-1] == tokenizer("")[-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such vocabulary file"),
        (b"red\nblue\n", r"lacks \[PAD\] \[UNK\] \[CLS\] \[SEP\] \[MASK\]"),
        (b"\xff\xfe\x00", "not a readable vocabulary"),
    ],
)
def test_bad_vocabulary(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"vocab\.txt: .*{message}.*bert-base-uncased"):
        Tokenizer(path, 20)
