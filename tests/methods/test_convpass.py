"""Convpass against its released forward pass."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from methods.oracles import IMAGE, LAYERS, TEXT, TOKENS, WIDTH, additional_macs, assert_agree, off_its_start, states

from vltune.costs.macs import example, macs
from vltune.errors import UserError
from vltune.layout import PatchGrid, PatchLayout
from vltune.methods.convpass import Convpass
from vltune.model import Model
from vltune.sites import OutputSite
from vltune.tasks.vqa import VQA

CELLS = 16


def at_an_image(rows, columns, start=1):
    site = OutputSite("attention_output", WIDTH)
    site.layout = PatchLayout(PatchGrid(rows, columns, start))
    return site


def test_is_the_released_forward():
    """JieShibo/PETL-ViT, convpass.py, of a ViT: a class token, then the patches of one size."""
    delta = off_its_start(Convpass(bottleneck=4, scale=0.5).delta(at_an_image(3, 5)))
    y, x = states((2, 16, WIDTH), (2, 16, WIDTH))

    def released():
        low = F.linear(x, delta.down.weight, delta.down.bias)
        low = low * (1.702 * low).sigmoid()
        images = low[:, :1].reshape(2, 1, 1, 4), low[:, 1:].reshape(2, 3, 5, 4)
        images = (F.conv2d(i.permute(0, 3, 1, 2), delta.conv.weight, delta.conv.bias, padding=1) for i in images)
        low = torch.cat([i.permute(0, 2, 3, 1).reshape(2, -1, 4) for i in images], dim=1)
        low = low * (1.702 * low).sigmoid()
        return y + 0.5 * F.linear(low, delta.up.weight, delta.up.bias)

    assert_agree(lambda: delta(y, x), released, y, x, *delta.parameters())


def test_starts_as_released():
    delta = Convpass(bottleneck=8).delta(at_an_image(3, 5))
    hidden = torch.randn(2, 16, 8)
    torch.testing.assert_close(delta.convolved(hidden), hidden, atol=1e-6, rtol=0)
    assert not any(start.any() for start in (delta.down.bias, delta.conv.bias, delta.up.weight, delta.up.bias))
    assert (delta.scale, delta.dropout.p) == (1.0, 0.1)


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_costs_are_the_closed_form(backbone):
    token, image = 2 * WIDTH * 4 + 4**2, CELLS * 9 * 4**2
    expected = {"vilt": 2 * (TOKENS * token + image), "meter": 3 * ((TEXT + IMAGE) * token + image)}[backbone]
    assert additional_macs(backbone, Convpass(bottleneck=4)) == LAYERS * expected


def test_costs_where_a_backbone_takes_fewer_patches_than_there_are():
    """The grid is as large, and empty where no patch was taken."""
    backbone = tiny.vilt(max_image_len=9)
    model = Model(backbone, VQA(WIDTH, WIDTH, tiny.ANSWERS), Convpass(bottleneck=4))
    measured = macs(model, example(TEXT, (64, 64), tiny.VOCABULARY))["additional_macs"]
    assert measured == LAYERS * 2 * ((TOKENS - CELLS + 9) * (2 * WIDTH * 4 + 4**2) + CELLS * 9 * 4**2)


def test_a_bottleneck_of_none_is_told_in_one_line():
    with pytest.raises(UserError, match=r"^method\.bottleneck=0: must be a whole number at least 1$"):
        Convpass(bottleneck=0).attach(tiny.vilt())
