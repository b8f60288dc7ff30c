"""Places of the true match, in both directions."""

import pytest
import torch

from vltune.metrics import recall
from vltune.metrics.recall import ranks

OWNER = torch.tensor([0, 0, 1, 1, 2])
SCORES = torch.tensor(
    [
        [0.9, 0.1, 0.5, 0.2, 0.3],  # own captions 0, 1: the best, 0.9, is first
        [0.8, 0.7, 0.4, 0.3, 0.2],  # own captions 2, 3: 0.4 comes after 0.8 and 0.7
        [0.1, 0.2, 0.3, 0.4, 0.35],  # own caption 4: 0.35 comes after 0.4
    ]
)


def test_a_worked_example():
    of_image, of_caption = ranks(SCORES, OWNER)
    assert of_image.tolist() == [1, 3, 2, 2, 1]
    assert of_caption.tolist() == [1, 3, 2]


def test_ties_and_nan_count_against_the_true_match():
    of_image, of_caption = ranks(torch.zeros(3, 5), OWNER)
    assert of_image.tolist() == [3] * 5
    assert of_caption.tolist() == [4, 4, 5]  # an image's own captions never count against it
    of_image, of_caption = ranks(torch.full((3, 5), torch.nan), OWNER)
    assert of_image.tolist() == [3] * 5
    assert of_caption.tolist() == [4, 4, 5]


def test_an_image_without_scores_is_placed_last():
    scores = SCORES.clone()
    scores[0] = -torch.inf
    of_image, of_caption = ranks(scores, OWNER)
    assert of_image.tolist() == [3, 3, 1, 2, 1]
    assert of_caption.tolist() == [4, 3, 2]


@pytest.mark.parametrize("block", [1, 4, 100])
def test_blocks_change_nothing(monkeypatch, block):
    """Against sorting, where no two scores are equal."""
    monkeypatch.setattr(recall, "IMAGES_PER_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(9, 40, generator=generator)
    owner = torch.cat([torch.arange(9), torch.randint(9, (31,), generator=generator)])
    of_image, of_caption = ranks(scores, owner)
    for caption, image in enumerate(owner.tolist()):
        assert scores[:, caption].argsort(descending=True)[of_image[caption] - 1] == image
    for image in range(9):
        placed = owner[scores[image].argsort(descending=True)] == image
        assert of_caption[image] == placed.nonzero()[0] + 1
