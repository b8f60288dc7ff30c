"""Ladder side-tuning against its released forward pass, and what it saves."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from methods.oracles import IMAGE, TEXT, TOKENS, WIDTH, additional_macs, assert_agree, off_its_start, states, tuned
from tiny_diffusion import ids, stable_diffusion
from torch.autograd.graph import saved_tensors_hooks

from vltune.errors import UserError
from vltune.methods.lora import LoRA
from vltune.methods.lst import LST, SideBlock
from vltune.model import Model
from vltune.tasks.vqa import VQA

SIDE, HEADS = 8, 2


def test_a_side_block_is_a_pre_norm_transformer_block():
    """The same tensors in torch's own layer, with a mask."""
    block = off_its_start(SideBlock(SIDE, HEADS, dropout=0.0), 0.2)
    torchs = torch.nn.TransformerEncoderLayer(
        SIDE, HEADS, 4 * SIDE, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    pairs = [
        *((block.query_key_value, "self_attn.in_proj_"), (block.out, "self_attn.out_proj."), (block.norm1, "norm1.")),
        *((block.feed_forward[0], "linear1."), (block.feed_forward[2], "linear2."), (block.norm2, "norm2.")),
    ]
    torchs.load_state_dict({f"{to}{key}": value for part, to in pairs for key, value in part.state_dict().items()})
    (x,) = states((2, 5, SIDE))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    ours, theirs = block(x, mask), torchs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours[mask], theirs[mask], atol=1e-5, rtol=1e-5)


def released(model, x, mask):
    """LXRTEncoder.forward of ylsung/Ladder-Side-Tuning, CLIP-ViL/src/lxrt/modeling.py, with a learned gate, beside blocks
    that nothing is put at: gates mix what the side network gave with what each block gives, before the side's own block."""
    rungs = [block.at_block.delta for block in model.backbone.blocks]
    model.tuning.detach()
    hidden = F.linear(x, rungs[0].first.weight)
    for rung, block in zip(rungs, model.backbone.blocks, strict=True):
        x = block(x, mask)
        share = torch.sigmoid(rung.gate / 0.1)
        hidden = rung.block(share * hidden + (1 - share) * F.linear(x, rung.down.weight), mask)
    return F.linear(hidden, rungs[-1].up.weight)


def test_is_the_released_forward():
    model = tuned("vilt", LST(head_width=4, side_heads=HEADS)).eval()
    deltas = [site.delta for site in model.tuning.sites]
    for delta in deltas:
        off_its_start(delta, 0.1)
    (x,) = states((2, 5, WIDTH))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    parameters = [parameter for delta in deltas for parameter in delta.parameters()]

    def ours():
        y = x
        for block in model.backbone.blocks:
            y = block(y, mask, only=0 if block is model.backbone.blocks[-1] else None)
        return y

    results = [ours()]  # before the reference takes the ladder away
    assert_agree(lambda: results[0], lambda: released(model, x, mask), x, *parameters)


def test_each_stream_has_a_ladder_of_its_own():
    tuning = LST(head_width=4, side_heads=HEADS).attach(tiny.meter())
    ends = [(site.delta.first is not None, site.delta.up is not None) for site in tuning.sites]
    assert ends == [(True, False), (False, True)] * 2
    assert len({id(site.delta.carried) for site in tuning.sites}) == 2


def kept_for_the_backward_pass(method):
    """Numbers that a step of a deep backbone keeps, without its parameters."""
    torch.manual_seed(0)
    backbone = tiny.vilt(layers=6)
    method.always_trained = "head_only"
    model = Model(backbone, VQA(WIDTH, WIDTH, tiny.ANSWERS), method).train()
    own, kept = {parameter.data_ptr() for parameter in model.parameters()}, {}

    def keep(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    batch = tiny.batch()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.task.loss(model(batch), batch)
    loss.backward()
    return model, sum(kept.values())


def test_training_keeps_a_fraction_of_what_others_keep():
    _, side = kept_for_the_backward_pass(LST(head_width=1, side_heads=HEADS))
    _, other = kept_for_the_backward_pass(LoRA(rank=2))
    assert side < 0.5 * other


def test_no_gradient_passes_through_the_backbone():
    reached = []
    method = LST(head_width=2, side_heads=HEADS)
    method.always_trained = "head_only"
    model = tuned("meter", method).train()
    for part in (*model.backbone.text_layers, *model.backbone.image_layers):
        part.self_attention.register_forward_hook(lambda *hooked: reached.append(hooked[-1].requires_grad))
    batch = tiny.batch(tiny.SQUARE)
    model.task.loss(model(batch), batch).backward()
    assert reached
    assert not any(reached)
    assert all(parameter.grad is not None for parameter in model.method_parameters)


def ladder(tokens, rungs=2):
    block = 12 * SIDE**2 + 2 * 5 * SIDE + 2 * tokens * SIDE
    return tokens * (rungs * (block + WIDTH * SIDE) + 2 * WIDTH * SIDE)


@pytest.mark.parametrize(("backbone", "expected"), [("vilt", ladder(TOKENS)), ("meter", ladder(TEXT) + ladder(IMAGE))])
def test_costs_are_the_closed_form(backbone, expected):
    assert additional_macs(backbone, LST(head_width=SIDE // HEADS, side_heads=HEADS)) == pytest.approx(
        expected, rel=1e-3
    )


@torch.no_grad()
def test_in_a_text_encoder_no_state_follows_what_comes_after_it():
    backbone, method = stable_diffusion(), LST(head_width=4, side_heads=HEADS)
    method.sites_in = "text"
    for site in method.attach(backbone).sites:
        off_its_start(site.delta, 0.1)
    one = ids()[:1]
    other = one.clone()
    other[:, 4] = 3 + other[:, 4] % 40
    before, after = (backbone.embed_prompt({"text_ids": each})[:, :4] for each in (one, other))
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_width": 0}, "method.head_width=0: must be a whole number at least 1"),
        ({"side_heads": 1.5}, "method.side_heads=1.5: must be a whole number at least 1"),
        ({"roles": ["query"]}, "LST cannot act at query, which is a layer; it can at block"),
    ],
)
def test_wrong_settings_are_told_in_one_line(settings, message):
    with pytest.raises(UserError) as error:
        LST(**settings).attach(tiny.vilt())
    assert message in str(error.value)
