"""APT's equation, written out token by token, and its gradients; the scale of the largest weight has none."""

from itertools import product

import pytest
import torch
from torch import nn

from vltune.methods.apt import ACTIVATIONS, MAPS, SCALES, ApproximatedPrompts, prompt_map

WIDTH, PROMPTS, RANK = 6, 5, 2


def made(activation, map, scale):
    """In double precision, off its start."""
    torch.manual_seed(0)
    delta = ApproximatedPrompts(torch.randn(PROMPTS, WIDTH), activation, prompt_map(map, WIDTH, RANK, 1.0), scale, 0.0)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.7)
    return delta.double()


def by_hand(delta, y, x, activation, map, scale):
    prompts, keys = delta.prompts, delta.prompts
    if map == "full":
        keys = keys + prompts @ delta.map[0].weight.T
    elif map == "low_rank":
        keys = keys + (prompts @ delta.map[0].weight.T) @ delta.map[1].weight.T
    rows = []
    for token, output in zip(x.flatten(0, 1), y.flatten(0, 1), strict=True):
        weights = torch.stack([torch.dot(token, key) for key in keys])
        weights = weights.clamp(min=0) if activation == "relu" else weights.exp() / weights.exp().sum()
        most = max(weights.tolist())
        if scale == "learned":
            most = most * delta.weight_scale
        elif scale == "gated":
            most = (gate := most * delta.weight_scale.exp()) / (1 + gate)
        added = sum(weight * prompt for weight, prompt in zip(weights, prompts, strict=True))
        rows.append((output + most * added) * delta.log_scale.exp())
    return torch.stack(rows).view_as(y)


@pytest.mark.parametrize(("activation", "map", "scale"), [*product(ACTIVATIONS, MAPS, SCALES)])
def test_it_is_the_equation_and_so_are_its_gradients(activation, map, scale):
    delta = made(activation, map, scale)
    y, x = (torch.randn(2, 3, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(2))
    to = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    found, expected = delta(y, x), by_hand(delta, y, x, activation, map, scale)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(delta.folded()(y, x), expected)
    inputs = [y, x, *delta.parameters()]
    for own, known in zip(*(torch.autograd.grad((to * of).sum(), inputs) for of in (found, expected)), strict=True):
        torch.testing.assert_close(own, known)
        assert known.abs().max() > 0


def test_it_starts_without_a_map_and_with_a_scale_of_one():
    torch.manual_seed(0)
    start = torch.randn(PROMPTS, WIDTH)
    for scale in SCALES:
        delta = ApproximatedPrompts(start, "relu", prompt_map("low_rank", WIDTH, RANK, 1.0), scale, 0.0)
        assert torch.equal(delta.keys(), start)
        assert delta.log_scale.item() == 0
        assert scale == "max" or delta.weight_scale.item() == {"learned": 1.0, "gated": 0.0}[scale]


def test_dropout_is_of_the_weights():
    torch.manual_seed(0)
    delta = ApproximatedPrompts(torch.eye(WIDTH), "relu", None, "max", 0.5).train()
    added = delta(torch.zeros(1, 400, WIDTH), torch.ones(1, 400, WIDTH))
    assert {*added.unique().tolist()} == {0.0, 4.0}  # each weight 1 becomes 0 or 2, times the largest, 2
    assert added.ne(0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(delta.eval()(torch.zeros(1, 1, WIDTH), torch.ones(1, 1, WIDTH)), torch.ones(1, 1, WIDTH))
