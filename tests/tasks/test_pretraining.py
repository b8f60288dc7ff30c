import pytest
import torch

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
