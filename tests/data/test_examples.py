"""What people look at is what models were given: the readers, which decode and tokenise the same files, are the measure."""

import pytest

from vltune.data.dataset import open_examples
from vltune.data.karpathy.reader import Karpathy
from vltune.data.nlvr2.prepare import ANSWERS
from vltune.data.nlvr2.reader import NLVR2Reader
from vltune.data.shapes import ensure
from vltune.data.snli_ve.prepare import LABELS
from vltune.data.snli_ve.reader import SNLIVEReader
from vltune.data.vqav2.reader import VQAv2
from vltune.errors import UserError

FEW = {"train": 8, "val": 4, "test": 8}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    for layout in ("vqav2", "nlvr2", "f30k", "snli_ve"):
        ensure(folder, layout, seed=1, images=FEW)
    return folder


def opened(data_set, folder, split, reader, tokenizer, transform):
    return open_examples(data_set, folder, [split]), reader(folder, [split], tokenizer, transform)


def stored(reader, text):
    """The bytes of the images of a text, as its reader finds them."""
    picture = int(reader._index["row"][text])
    return tuple(bytes(reader.content(picture, which)) for which in range(len(reader.image_columns)))


def test_questions(worlds, tokenizer, transform):
    examples, reader = opened("vqav2", worlds / "vqav2", "vqav2_test", VQAv2, tokenizer, transform)
    assert len(reader) == 32
    for text in range(len(reader)):
        example = reader[text]
        asked = examples.asked(example["id"], "red")
        assert tokenizer.many([asked.shown.text]) == [example["text_ids"]]
        labels = [reader.answers[label] for label in example["answer_labels"]]
        assert asked.answers == dict(zip(labels, example["answer_scores"], strict=True))
        assert asked.shown.images == stored(reader, text)


@pytest.mark.parametrize(
    ("data_set", "layout", "split", "reader", "names"),
    [
        ("nlvr2", "nlvr2", "nlvr2_test1", NLVR2Reader, ANSWERS),
        ("snli_ve", "snli_ve", "snli_dev", SNLIVEReader, LABELS),
    ],
)
def test_classified_texts(data_set, layout, split, reader, names, worlds, tokenizer, transform):
    examples, reader = opened(data_set, worlds / layout, split, reader, tokenizer, transform)
    for text in range(len(reader)):
        example = reader[text]
        asked = examples.asked(example["id"], names[0])
        assert tokenizer.many([asked.shown.text]) == [example["text_ids"]]
        assert asked.answers == {names[example["label"]]: 1.0}
        assert asked.shown.images == stored(reader, text)
    assert examples.said(names[0]).text == names[0]


def test_captions_and_images_find_each_other(worlds, tokenizer, transform):
    examples, reader = opened("karpathy", worlds / "f30k", "f30k_caption_karpathy_test", Karpathy, tokenizer, transform)
    for caption, owner in enumerate(reader.owner.tolist()):
        asked = examples.asked(caption, "image 0")
        assert asked.answers == {f"image {owner}": 1.0}
        assert tokenizer.many([asked.shown.text]) == [reader.captions[caption]["text_ids"]]
        assert examples.said(f"caption {caption}").text == asked.shown.text
        asked = examples.asked(owner, "caption 0")
        assert asked.answers[f"caption {caption}"] == 1.0
        assert asked.shown.images == examples.said(f"image {owner}").images == stored(reader, caption)
    assert len(asked.answers) == reader.owner.tolist().count(owner)


@pytest.mark.parametrize(
    ("data_set", "layout", "split", "beyond"),
    [
        ("vqav2", "vqav2", "vqav2_val", 7),
        ("nlvr2", "nlvr2", "nlvr2_dev", 16),
        ("karpathy", "f30k", "f30k_caption_karpathy_val", 4),
    ],
)
def test_what_is_not_there(data_set, layout, split, beyond, worlds):
    examples = open_examples(data_set, worlds / layout, [split])
    with pytest.raises(KeyError):
        examples.asked(beyond, "caption 0")
    with pytest.raises(UserError, match="nowhere"):
        open_examples(data_set, worlds / "nowhere", [split])


def test_no_data_set():
    with pytest.raises(UserError, match="pretraining"):
        open_examples("pretraining", ".", [])
