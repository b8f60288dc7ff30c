"""A site says which tokens are patches, and where in the image each of them lies."""

import copy

import pytest
import tiny
import torch
from backbones.test_swin import meter as meter_with_swin
from test_contract import AtRoles, Convolved, OwnBias
from torch import nn
from torch.nn.functional import avg_pool2d

from vltune.evaluators.all_pairs import without_padding
from vltune.layout import PatchGrid
from vltune.sites import OutputSite, PartSite, sites

SIDE = 16  # pixels of a patch
IN_ATTENTION = {"query", "key", "value", "keys_values", "projection", "attention_output", "parallel_output"}
IN_FEED_FORWARD = {"feed_forward_up", "feed_forward_down", "feed_forward_output"}
CROSS = {"cross_memory", "cross_keys_values"}
EVERYWHERE = IN_ATTENTION | IN_FEED_FORWARD | {"norm", "memory", "block"}
# backbone -> (how it is made, the sizes of its images, {place: the roles of sites with a layout there})
BACKBONES = {
    "vilt": (tiny.vilt, tiny.SIZES, {"fusion": EVERYWHERE}),
    "meter": (tiny.meter, tiny.SQUARE, {"fusion": EVERYWHERE | CROSS, "image": EVERYWHERE | {"sequence"}}),
    "clip": (tiny.clip, tiny.SQUARE, {"image": EVERYWHERE | {"sequence"}}),
    "meter with swin": (
        lambda **more: meter_with_swin(token_types=3, **more),
        tiny.SQUARE,
        {"fusion": EVERYWHERE | CROSS, "image": IN_FEED_FORWARD},
    ),
}


def local(backbone):
    """Without attention, so that a patch follows from its own pixels; timm's layers pass sites that have a delta."""
    for site in sites(backbone):
        if isinstance(site, PartSite):
            site.put(OwnBias())
        if site.role == "projection":
            nn.init.zeros_(site.part.weight)
            nn.init.zeros_(site.part.bias)
    return backbone


@torch.no_grad()
def seen(backbone, batch):
    """{site: the grid of what it sees}, of sites with a layout; at an output of what the sublayer reads."""
    found = {}

    def look(site, inputs):
        found[site] = site.layout.grid.scatter(inputs[isinstance(site, OutputSite)])

    hooks = [site.register_forward_pre_hook(look) for site in sites(backbone) if site.layout]
    (backbone if backbone.offers("forward") else backbone.embed_image)(batch)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("cell", [(0, 0), (1, 3), (2, 1)])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_patch_lies_where_the_image_has_it(name, cell):
    """At every site: of other pixels in one cell of the second image, that cell alone becomes another."""
    make, sizes, with_layout = BACKBONES[name]
    backbone, batch = local(make(last_layer="all")), tiny.batch(sizes)
    before = seen(backbone, batch)
    top, left = (SIDE * number for number in cell)
    batch["image"][1, :, top : top + SIDE, left : left + SIDE] += torch.randn(3, SIDE, SIDE)
    after = seen(backbone, batch)
    assert {place: {s.role for s in before if s.place == place} for place in with_layout} == with_layout
    assert {site.place for site in before} == {*with_layout}
    for site, grid in before.items():
        changed = (grid - after[site]).abs().amax(1)
        assert not changed[[0, 2]].any()
        if site.role == "projection":  # reads what attention mixed
            continue
        finer = (
            changed.shape[2] * SIDE // batch["image"].shape[3]
        )  # cells a side of a patch: Swin begins with smaller ones
        expected = torch.zeros_like(changed[1], dtype=torch.bool)
        expected[finer * cell[0] : finer * (cell[0] + 1), finer * cell[1] : finer * (cell[1] + 1)] = True
        torch.testing.assert_close(changed[1] > 1e-6, expected, msg=f"{site.place} {site.role}")


def traced(**more):
    """A ViLT whose patches hold the mean of their pixels, in the first number."""
    backbone = tiny.vilt(**more)
    embedding = backbone.image
    with torch.no_grad():
        for parameter in (*embedding.parameters(), backbone.token_type.weight):
            parameter.zero_()
        embedding.patch.weight[0] = 1 / embedding.patch.in_features
    return backbone


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("most", [-1, 5])
@torch.no_grad()
def test_patches_of_images_of_several_sizes_are_scattered_and_gathered(most, training):
    """Those that are left out, and what an image has no patches for, are zero."""
    backbone, batch = traced(max_image_len=most).train(training), tiny.batch()
    encoded = backbone.encode_image(batch)
    cells, means = encoded.grid.scatter(encoded.tokens)[:, 0], avg_pool2d(batch["image"], SIDE).mean(1)
    there = cells != 0
    counts = batch["image_size"].div(SIDE, rounding_mode="floor").prod(1)
    assert there.sum((1, 2)).tolist() == (counts if most < 0 else counts.clamp(max=most)).tolist()
    torch.testing.assert_close(cells[there], means[there])
    if most < 0:
        torch.testing.assert_close(cells, means)
    again = encoded.grid.gather(encoded.grid.scatter(encoded.tokens))
    assert (encoded.mask is None) == (most > 0), "every image has five"
    real = torch.tensor(True) if encoded.mask is None else encoded.mask[:, 1:, None]
    assert torch.equal(again, torch.where(real, encoded.tokens[:, 1:], 0))


def test_what_is_mapped_stands_in_the_patches_places():
    grid, x = PatchGrid(2, 3, start=2), torch.randn(2, 10, 4)  # two tokens before, two after
    mapped = grid.map(lambda cells: 2 * cells, x, -x)
    assert torch.equal(mapped, torch.cat([-x[:, :2], 2 * x[:, 2:8], -x[:, 8:]], 1))
    first = x[:, :1]
    assert grid.map(None, first, first) is first


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([2, 0, 2])])
@torch.no_grad()
def test_chosen_examples_keep_their_grids(rows):
    encoded = traced().encode_image(tiny.batch())
    cells = encoded.grid.scatter(encoded.tokens)
    assert torch.equal(encoded[rows].grid.scatter(encoded[rows].tokens), cells[rows])
    twice = encoded.repeat(2)
    assert torch.equal(twice.grid.scatter(twice.tokens), cells.repeat_interleave(2, 0))


@torch.no_grad()
def test_images_without_their_padding_are_the_same_to_a_convolution():
    """As all pairs of a split are scored."""
    backbone, batch = tiny.vilt(), tiny.batch()
    for parameter in AtRoles(["attention_output", "value"], Convolved).attach(backbone).trained:
        parameter.normal_(std=0.3)
    text, image = backbone.encode_text(batch), backbone.encode_image(batch)
    together, groups = backbone.fuse(text, image).pooled, [*without_padding(image)]
    assert len(groups) > 1
    for rows, alone in groups:
        torch.testing.assert_close(backbone.fuse(text[rows], alone).pooled, together[rows], atol=1e-5, rtol=1e-5)


def test_a_copy_has_a_layout_of_its_own():
    backbone = tiny.vilt()
    other = copy.deepcopy(backbone)
    assert {id(site.layout) for site in sites(other.blocks)} == {id(other.layout)} != {id(backbone.layout)}


def test_texts_have_none():
    backbone = tiny.meter()
    assert not any(site.layout for site in sites(backbone.text))
    assert not any(site.layout for layer in backbone.text_layers for site in sites(layer.feed_forward))
