"""CoOp, CoCoOp, MaPLe and CLIP-Adapter are their equations, written out."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from test_combinations import OF_TOWERS, disturb

from vltune.errors import UserError
from vltune.methods.clip_adapter import ClipAdapter
from vltune.methods.cocoop import CoCoOp
from vltune.methods.coop import CoOp
from vltune.methods.maple import MaPLe
from vltune.methods.shallow_prompt import ShallowPrompt
from vltune.model import Model
from vltune.nn.embeddings import unfold
from vltune.sites import sites
from vltune.tuning import Stack

END = tiny.END_OF_TEXT
IDS = torch.tensor([[1, 7, 9, END, 0, 0], [1, 5, END, 0, 0, 0]])
BATCH = tiny.batch(tiny.SQUARE)


def tuned(method, where="text"):
    method.sites_in = where
    model = Model(tiny.clip(), tiny.classification(), method).eval()
    disturb(model)
    return model


def text_by_hand(tower, words, end, replaced=()):
    """words: (C, N, width) without positions.  replaced: of blocks after the first, what takes the place of tokens 1..."""
    x = words + tower.position[: words.shape[1]]
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()[None]
    for i, block in enumerate(tower.blocks):
        if i and i <= len(replaced):
            mine = replaced[i - 1].expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], mine, x[:, 1 + mine.shape[1] :]], 1)
        x = block.inside(x, mask, None)
    return tower.norm(x[torch.arange(len(x)), end])


@torch.no_grad()
def test_coop_puts_its_words_behind_the_first_token():
    model = tuned(CoOp(prompts=4))
    tower = model.backbone.text
    context, words = tower.at_sequence.delta.prompts, tower.word(IDS)
    sequence = torch.cat([words[:, :1], context.expand(2, -1, -1), words[:, 1:]], 1)
    expected = model.backbone.text_projection(text_by_hand(tower, sequence, torch.tensor([7, 6])))
    torch.testing.assert_close(model.backbone.embed_text(IDS), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_cocoop_shifts_them_by_what_follows_from_each_image():
    model = tuned(CoCoOp(prompts=4, reduction=10))
    backbone, tower = model.backbone, model.backbone.text
    images = torch.randn(3, 20)
    found = backbone.embed_text(IDS, images)
    assert found.shape == (3, 2, 20)
    delta, words = tower.at_sequence.delta, tower.word(IDS)
    for image, features in zip(images, found, strict=True):
        shift = delta.up(delta.down(F.normalize(image, dim=-1)).relu())
        sequence = torch.cat([words[:, :1], (delta.prompts + shift).expand(2, -1, -1), words[:, 1:]], 1)
        expected = backbone.text_projection(text_by_hand(tower, sequence, torch.tensor([7, 6])))
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("methods", [(CoOp(2), CoCoOp(3)), (CoCoOp(3), CoOp(2))], ids=["before", "behind"])
def test_tokens_of_each_image_stand_beside_those_of_all(methods):
    for method in methods:
        method.sites_in = "text"
    model = tuned(Stack(methods))
    tower, images = model.backbone.text, torch.randn(3, 20)
    words = tower.word(IDS)
    for image, features in zip(images, model.backbone.embed_text(IDS, images), strict=True):
        unit, joined = F.normalize(image, dim=-1), []
        for delta in tower.at_sequence.delta.deltas:
            joined += delta.prompts + (delta.up(delta.down(unit).relu()) if delta.follows_image else 0)
        sequence = torch.cat([words[:, :1], torch.stack(joined).expand(2, -1, -1), words[:, 1:]], 1)
        expected = model.backbone.text_projection(text_by_hand(tower, sequence, torch.tensor([8, 7])))
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_cocoop_has_the_gradient_of_each_image_s_own_texts():
    model = tuned(CoCoOp(prompts=2, reduction=10)).train()
    images = torch.randn(3, 20)
    model.backbone.embed_text(IDS, images).square().sum().backward()
    found = [parameter.grad.clone() for parameter in model.method_parameters]
    model.zero_grad()
    for image in images:
        model.backbone.embed_text(IDS, image[None]).square().sum().backward()
    for parameter, gradient in zip(model.method_parameters, found, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_maple_replaces_prompts_of_both_towers_block_by_block():
    model = tuned(MaPLe(prompts=3, depth=2), "towers")
    backbone = model.backbone
    text, image = backbone.text, backbone.image
    first = text.at_sequence.delta.source.prompts
    second = text.blocks[1].at_block.delta.source.prompts
    words = text.word(IDS)
    sequence = torch.cat([words[:, :1], first.expand(2, -1, -1), words[:, 1:]], 1)
    expected = backbone.text_projection(text_by_hand(text, sequence, torch.tensor([6, 5]), [second]))
    torch.testing.assert_close(backbone.embed_text(IDS), expected, atol=1e-5, rtol=1e-5)

    patches = image.patch(unfold(BATCH["image"], 16)) + image.position
    x = torch.cat([(image.class_token + image.class_position).expand(3, 1, -1), patches], 1)
    x = image.norm_in(torch.cat([x, image.at_sequence.delta.source.map(first).expand(3, -1, -1)], 1))
    x = image.blocks[0].inside(x, None, None)
    x = torch.cat([x[:, :-3], image.blocks[1].at_block.delta.source.map(second).expand(3, -1, -1)], 1)
    x = image.norm(image.blocks[1].inside(x, None, None))[:, 0]
    torch.testing.assert_close(backbone.embed_image(BATCH), backbone.image_projection(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("other", [lambda: ShallowPrompt(3), lambda: CoOp(3)])
def test_maple_joins_no_sequence_that_another_method_joins(other):
    for methods in ([MaPLe(prompts=2, depth=2), other()], [other(), MaPLe(prompts=2, depth=2)]):
        methods[0].sites_in = methods[1].sites_in = "towers"
        for method in methods:
            if isinstance(method, CoOp):
                method.sites_in = "text"
        with pytest.raises(UserError, match=r"cannot act at sequence, where another method"):
            Stack(methods).attach(tiny.clip())


@torch.no_grad()
def test_clip_adapter_mixes_what_it_says_with_what_was_there():
    plain, model = tiny.clip(), tuned(ClipAdapter(ratio=0.3), "image")
    delta, y = model.backbone.at_image.delta, plain.embed_image(BATCH)
    expected = 0.3 * (delta.up.weight @ (delta.down.weight @ y.t()).relu()).relu().t() + 0.7 * y
    torch.testing.assert_close(model.backbone.embed_image(BATCH), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "make", [lambda: CoOp(3, "a photo of"), lambda: CoCoOp(3, "a photo of a"), lambda: MaPLe(3, 1, "a photo of")]
)
def test_words_are_what_prompts_start_as(make):
    model = tuned(make(), "towers" if isinstance(make(), MaPLe) else "text")
    model.tuning.start(model, lambda steps: iter(()))
    delta = model.backbone.text.at_sequence.delta
    prompts = delta.source.prompts if isinstance(make(), MaPLe) else delta.prompts
    assert torch.equal(prompts, model.backbone.text.word(torch.tensor(tiny.Words()("a photo of")[1:-1])))


@pytest.mark.parametrize(
    ("make", "where", "message"),
    [
        (lambda: CoOp(0), "text", "method.prompts=0: must be a whole number at least 1"),
        (lambda: CoOp(), "image", "CoOp cannot act at sequence, which is no text that images are compared with"),
        (lambda: CoCoOp(), "towers", "CoCoOp cannot act at sequence, which is no text that images are compared with"),
        (lambda: MaPLe(depth=3), "towers", "method.depth=3: must be at most the 2 blocks of the shorter tower"),
        (lambda: MaPLe(), "text", "MaPLe needs the sequence and the blocks of a text and of an image tower"),
        (lambda: ClipAdapter(roles=["attention_output"]), "image", "which is inside a tower"),
    ],
)
def test_wrong_settings_are_told_in_one_line(make, where, message):
    method = make()
    method.sites_in = where
    with pytest.raises(UserError) as error:
        method.attach(tiny.clip())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_fewer_words_than_prompts_are_told():
    model = tuned(CoOp(4, "a photo"))
    with pytest.raises(UserError, match=r"method.words='a photo': has 2 tokens, and method.prompts=4"):
        model.tuning.start(model, lambda steps: iter(()))


def test_all_are_in_the_table_of_the_generic_tests():
    assert {CoOp, CoCoOp, MaPLe, ClipAdapter} <= {type(make()) for make, *_ in OF_TOWERS.values()}


@pytest.mark.parametrize("method", [CoOp(prompts=200, init_std=0.3), CoCoOp(prompts=200, reduction=4, init_std=0.3)])
def test_words_start_as_spread_as_told_and_the_image_is_read_by_its_share(method):
    torch.manual_seed(0)
    site = next(each for each in sites(tiny.clip().text) if each.role == "sequence")
    delta = method.delta(site)
    assert delta.prompts.std().item() == pytest.approx(0.3, rel=0.1)
    if isinstance(method, CoCoOp):
        assert site.image_width != site.width
        assert delta.down.weight.shape == (site.image_width // 4, site.image_width)
