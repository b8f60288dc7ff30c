import pytest
import torch
import torch.nn.functional as F

from vltune.backbones.backbone import Features
from vltune.data.shapes.pretraining import PretrainingBatches
from vltune.data.shapes.vocabulary import VOCABULARY
from vltune.data.tokenizer import Tokenizer
from vltune.errors import UserError
from vltune.tasks.pretraining import Pretraining


@pytest.mark.parametrize(("batch_size", "mask_rate"), [(1, 0.4), (2, 0.4), (8, 0.01)])
def test_what_masks_nothing_adds_nothing_to_the_loss(batch_size, mask_rate):
    tokenizer = Tokenizer(VOCABULARY, 20)
    stream = PretrainingBatches(seed=0, batch_size=batch_size, tokenizer=tokenizer, max_text_len=20)
    task = Pretraining(4, 4, tokenizer.size, tokenizer.mask_id, stream.attribute_classes, mask_rate)
    masked = []
    for step in range(8):
        batch = stream.batch(step)
        length, patches = batch["text_ids"].shape[1], batch["attributes"].shape[1]
        tokens = torch.randn(batch_size, 1 + length + patches, 4)
        output = task(lambda _, t=tokens, n=length: Features(t[:, 0], t[:, :n], t[:, n:]), batch)
        assert torch.isfinite(task.loss(output, batch))
        masked.append(len(output["word"]))
    assert not all(masked)


@pytest.mark.parametrize("lacks", ["text", "image"])
def test_a_backbone_that_gives_no_tokens_is_told_in_one_line(lacks):
    tokenizer = Tokenizer(VOCABULARY, 20)
    stream = PretrainingBatches(seed=0, batch_size=2, tokenizer=tokenizer, max_text_len=20)
    task = Pretraining(4, 4, tokenizer.size, tokenizer.mask_id, stream.attribute_classes)
    tokens = {"text": torch.zeros(2, 20, 4), "image": torch.zeros(2, 17, 4)} | {lacks: None}
    with pytest.raises(UserError, match="gives no features of each word and each patch, which mode=pretrain needs; "):
        task(lambda _: Features(torch.zeros(2, 4), **tokens), stream.batch(0))


def of_four_words(**more):
    """A task of 10 words, the last of them [MASK], and a batch of texts of 4, 3, 4, 3 and 4 tokens, the second of which is
    of another image."""
    task = Pretraining(4, 4, 10, mask_id=9, attributes=[2, 3], **more)
    lengths = torch.tensor([4, 3, 4, 3, 4])
    return task, {
        "text_ids": torch.arange(1, 5).repeat(5, 1),
        "text_mask": torch.arange(4) < lengths[:, None],
        "match": torch.tensor([1, 0, 1, 1, 1]),
        "word_labels": torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]])[[0, 1, 0, 0, 0]],
        "attributes": torch.zeros(5, 2, 2, dtype=torch.int64),
    }


def test_of_every_other_true_pair_all_words_but_the_ends_may_be_masked():
    task, batch = of_four_words(mask_rate=1.0)
    ids, masked, chosen = task.mask(batch)
    assert masked.tolist() == [False, False, True, False, True]
    assert chosen[masked].tolist() == [[False, True, True, False]] * 2
    assert ids.tolist() == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 9, 9, 4], [1, 2, 3, 4], [1, 9, 9, 4]]
    batch["match"] = torch.tensor([1, 0, 0, 1, 0])
    ids, masked, _ = task.mask(batch)
    assert masked.tolist() == [False, False, False, True, False]
    assert ids[3].tolist() == [1, 9, 3, 4]  # [SEP] is the third of three, and what follows is padding


@torch.no_grad()
def test_a_loss_by_hand():
    """False pairs weigh half, a caption's false word five times; what is masked serves neither."""
    task, batch = of_four_words(mask_rate=1.0, bag_weight=0.2)
    text, image, pooled = torch.randn(5, 4, 4), torch.randn(5, 3, 4), torch.randn(5, 4)
    loss = task.loss(task(lambda _: Features(pooled, text, image), batch), batch)

    def cost(logits, label):
        return -logits.log_softmax(-1)[..., label]

    words = cost(task.word(text[[2, 4], 1]), 2).sum() + cost(task.word(text[[2, 4], 2]), 3).sum()
    said = torch.zeros(10)
    said[[2, 3]] = 1.0
    bags = F.binary_cross_entropy_with_logits(task.words(pooled[[2, 4]]), said.expand(2, -1), reduction="sum") / 2
    match = (cost(task.match(pooled[[0, 3]]), 1).sum() + 0.5 * cost(task.match(pooled[1]), 0)) / 2.5
    right = cost(task.false_word(text[[0, 1, 3]]), 0)
    wrong = cost(task.false_word(text[1, 1]), 1)
    false_word = (right.sum() - right[1, 1] + 5 * wrong) / (11 + 5)
    shape, colour = task.attribute(image[:, 1:]).split([2, 3], -1)
    expected = words / 4 + 0.2 * bags + match + false_word + cost(shape, 0).mean() + cost(colour, 0).mean()
    torch.testing.assert_close(loss, expected)
