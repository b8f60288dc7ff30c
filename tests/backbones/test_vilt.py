"""Which patches of an image ViLT keeps where it has too many."""

import pytest
import tiny
import torch

from vltune.backbones.vilt import ImageEmbedding

GRIDS = torch.tensor([[3, 4], [2, 3], [1, 4]])  # of a raster of 3 x 4; 12, 6 and 4 patches
RASTER = (3, 4)


@pytest.fixture
def embedding():
    return ImageEmbedding(tiny.WIDTH, 16, 64, 0.0)


def kept(embedding, most):
    """Of each image the indices into the raster."""
    keep, real = embedding.choose(GRIDS, *RASTER, most)
    return [row[is_real].tolist() for row, is_real in zip(keep, real, strict=True)]


def test_in_inference_they_are_evenly_spaced_and_those_of_an_image_with_fewer_are_all(embedding):
    embedding.eval()
    assert kept(embedding, 5) == [[0, 2, 4, 7, 9], [0, 1, 2, 4, 5], [0, 1, 2, 3]]


def test_in_training_they_are_drawn_each_at_most_once_from_the_image_alone(embedding):
    embedding.train()
    torch.manual_seed(0)
    drawn = [kept(embedding, 5) for _ in range(200)]
    assert all(len(set(some)) == 5 for some, *_ in drawn)
    assert {index for some, *_ in drawn for index in some} == {*range(12)}
    assert {index for _, some, _ in drawn for index in some} == {0, 1, 2, 4, 5, 6}
    assert all(few == [0, 1, 2, 3] for *_, few in drawn)
    counts = torch.bincount(torch.tensor([some for some, *_ in drawn]).flatten())
    assert counts.min() > 50  # of 83 expected
