import json
import shutil

import pytest
from tokenizers.pre_tokenizers import ByteLevel
from transformers import BertTokenizerFast, RobertaTokenizerFast

from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.tokenizer import BytePairTokenizer, FilledTokenizer, Tokenizer
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
    assert (lines[tokenizer.cls_id], lines[tokenizer.sep_id]) == ("[CLS]", "[SEP]")
    ids = tokenizer("what color is the large circle?")
    assert [lines[i] for i in ids] == ["[CLS]", "what", "color", "is", "the", "large", "circle", "?", "[SEP]"]


def test_truncates_before_sep(tokenizer):
    ids = tokenizer("red " * 40)
    assert len(ids) == 20
    assert ids[-1] == tokenizer("")[-1]


@pytest.mark.parametrize(("words", "cut"), [(1, False), (6, False), (7, True), (30, True)])
def test_a_text_that_is_longer_than_what_is_read_is_told_apart(words, cut):
    """However many of its tokens are filling."""
    for made in (Tokenizer(VOCABULARY, 8), FilledTokenizer(VOCABULARY, "[PAD]", 8)):
        assert made.cuts("red " * words) == cut


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


MERGES = ["Ġ r", "e d", "Ġr ed", "c i", "Ġ ci", "ci r", "Ġ a", "l e"]


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A folder with a small vocabulary in the layout of RoBERTa's."""
    folder = tmp_path_factory.mktemp("roberta")
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet())]
    tokens += [pair.replace(" ", "") for pair in MERGES] + ["<mask>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    (folder / "config.json").write_text('{"model_type": "roberta"}')
    return folder


def test_like_transformers_roberta(roberta):
    theirs = RobertaTokenizerFast.from_pretrained(roberta)
    ours = BytePairTokenizer(roberta / "vocab.json", roberta / "merges.txt", 12)
    texts = [
        "What color is  the red circle?",
        "a ÉLÉGANT zebra",
        "",
        "\u4e2d 5",
        "red " * 30,
        "a<mask> circle",
        " red ",
    ]
    for text in texts:
        assert ours(text) == theirs(text, truncation=True, max_length=12).input_ids
    for name in ("pad", "cls", "sep", "mask"):
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_token_id")
    assert (ours.pad_id, ours.cls_id, ours.sep_id) == (1, 0, 2)
    assert (ours.size, ours.max_length) == (len(theirs), 12)


def test_merged_pieces_are_used(roberta):
    ours = BytePairTokenizer(roberta / "vocab.json", roberta / "merges.txt", 12)
    ids = json.loads((roberta / "vocab.json").read_text())
    assert ours("red red") == [ids[token] for token in ("<s>", "r", "ed", "Ġred", "</s>")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", None, "no such vocabulary file"),
        ("vocab.json", b"[CLS]", "not a vocabulary of tokens and ids"),
        ("vocab.json", b"5", "not a vocabulary of tokens and ids"),
        ("vocab.json", b'{"a": 0}', "lacks <s> <pad> </s> <unk> <mask>"),
        ("merges.txt", None, "no such vocabulary file"),
        ("merges.txt", b"\xff\xfe", "not a readable vocabulary"),
        ("merges.txt", b"#version: 0.2\nx yz q\n", "not the merges of vocab.json"),
    ],
)
def test_bad_byte_pair_files(roberta, tmp_path, name, content, message):
    folder = shutil.copytree(roberta, tmp_path / "roberta")
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: .*{message}.*roberta-base") as error:
        BytePairTokenizer(folder / "vocab.json", folder / "merges.txt", 20)
    assert "\n" not in str(error.value)


def test_a_text_is_filled_to_the_whole_length():
    plain, filled = Tokenizer(VOCABULARY, 12), FilledTokenizer(VOCABULARY, "[SEP]", 12)
    for text in ("a red circle", "", "red " * 30):
        ids = plain(text)
        assert filled(text) == [*ids, *[plain.sep_id] * (12 - len(ids))]
    assert filled.many(["red"]) == [filled("red")]
    assert FilledTokenizer(VOCABULARY, None, 12)("red") == plain("red")
    with pytest.raises(UserError, match=r"^backbone\.tokenizer\.padding=<end>: is no token of the vocabulary"):
        FilledTokenizer(VOCABULARY, "<end>", 12)
