"""Mona against its released forward pass."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from methods.oracles import IMAGE, LAYERS, TEXT, TOKENS, WIDTH, additional_macs, assert_agree, off_its_start, states

from vltune.errors import UserError
from vltune.layout import PatchGrid, PatchLayout
from vltune.methods.mona import Mona
from vltune.sites import OutputSite

CELLS = 16


def at_an_image(rows, columns, start):
    site = OutputSite("attention_output", WIDTH)
    site.layout = PatchLayout(PatchGrid(rows, columns, start))
    return site


@pytest.mark.parametrize("others", [0, 2])
def test_is_the_released_forward(others):
    """Leiyi-Hu/mona, swin_transformer_mona.py, whose tokens are all patches; others are images of one cell."""
    delta = off_its_start(Mona(bottleneck=4).delta(at_an_image(3, 5, others)))
    y, x = states((2, others + 15, WIDTH), (2, others + 15, WIDTH))

    def operator(image):
        """(B, H, W, 4)"""
        image = image.permute(0, 3, 1, 2)
        several = [F.conv2d(image, c.weight, c.bias, padding=c.weight.shape[-1] // 2, groups=4) for c in delta.convs]
        image = sum(several) / 3 + image
        image = image + F.conv2d(image, delta.mix.weight[:, :, None, None], delta.mix.bias)
        return image.permute(0, 2, 3, 1).flatten(1, 2)

    def released():
        normal = F.layer_norm(y, (WIDTH,), delta.norm.weight, delta.norm.bias)
        low = F.linear(normal * delta.norm_scale + y * delta.scale, delta.down.weight, delta.down.bias)
        images = [low[:, i, None, None] for i in range(others)] + [low[:, others:].unflatten(1, (3, 5))]
        low = F.gelu(torch.cat([operator(image) for image in images], dim=1))
        return y + F.linear(low, delta.up.weight, delta.up.bias)

    assert_agree(lambda: delta(y, x), released, y, *delta.parameters())


def test_starts_as_released():
    delta = Mona().delta(at_an_image(3, 5, 0))
    assert (delta.norm_scale == 1e-6).all()
    assert (delta.scale == 1).all()
    assert delta.up.weight.abs().max() > 0
    assert (delta.down.out_features, delta.dropout.p) == (64, 0.1)


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_costs_are_the_closed_form(backbone):
    token, image = 2 * WIDTH * 4 + 4**2 + 5 * WIDTH, CELLS * 4 * (9 + 25 + 49)
    expected = {"vilt": 2 * (TOKENS * token + image), "meter": 3 * ((TEXT + IMAGE) * token + image)}[backbone]
    assert additional_macs(backbone, Mona(bottleneck=4)) == LAYERS * expected


def test_a_bottleneck_of_none_is_told_in_one_line():
    with pytest.raises(UserError, match=r"^method\.bottleneck=0: must be a whole number at least 1$"):
        Mona(bottleneck=0).attach(tiny.vilt())
