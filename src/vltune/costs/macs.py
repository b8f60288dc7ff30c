"""Multiply-accumulates (MACs) of one example: measured by fvcore, and as the paper counted them.

fvcore counts one flop a multiply-accumulate and 5 an element of an affine LayerNorm.  It has no handler for fused
attention, which it would silently count as zero, and reads an einsum's from a text of four digits: it is given one of
each, and any operator that is neither counted nor on the list of cheap ones is an error.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from vltune.backbones.backbone import Backbone
from vltune.batch import Batch
from vltune.model import Model
from vltune.sites import Site

# Elementwise work, comparisons and bookkeeping: a few operations an element where a linear layer takes `width`.
CHEAP_NAMES = """
abs add add_ addcmul all amax any arange argmax argsort bitwise_not broadcast_tensors clamp clamp_min cos cumsum div
embedding eq exp expand_as fill_ floor_divide full_like ge gelu gt le linalg_vector_norm linspace log log_sigmoid
log_softmax logical_and logical_not logical_or lt masked_fill masked_fill_ max maximum mean min minimum mul mul_ ne neg
nonzero one_hot new_ones new_zeros ones ones_like pad pow prod reciprocal relu relu_ repeat rsqrt rsub scatter sigmoid
silu sin softmax softplus sort sqrt std sub sum tanh tile tril unflatten unique_dim var view_as where zeros zeros_like
_unique2
"""
CHEAP = {f"aten::{name}" for name in CHEAP_NAMES.split()}


def attention_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """softmax(q k^T) v: (..., N, d), (..., M, d), (..., M, e) -> N M (d + e) for every head of every example"""
    (*lead, n, d), (*_, m, e) = (inputs[i].type().sizes() for i in (0, 2))
    return Counter({"attention": prod(lead) * n * m * (d + e)})


def einsum_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Operand after operand, the product of the sizes of all axes that it and what came before still have."""
    terms, _, kept = inputs[0].toIValue().replace(" ", "").partition("->")
    operands = [operand.type().sizes() for operand in inputs[1].node().inputs()]
    of_ellipsis = "0123456789"  # axes that have no letter, the last one 9
    names = [
        term.replace("...", of_ellipsis[len(of_ellipsis) + len(term) - 3 - len(sizes) :])
        for term, sizes in zip(terms.split(","), operands, strict=True)
    ]
    size_of: dict[str, int] = {}
    for name, size in zip("".join(names), (size for sizes in operands for size in sizes), strict=True):
        size_of[name] = max(size, size_of.get(name, 1))  # one of 1 is repeated
    axes, macs = {*names[0]}, 0
    for number, other in enumerate(names[1:], start=2):
        axes |= {*other}
        macs += prod(size_of[axis] for axis in axes)
        axes &= {*kept.replace("...", of_ellipsis), *"".join(names[number:])}
    return Counter({"einsum": macs})


HANDLERS = {"aten::scaled_dot_product_attention": attention_macs, "aten::einsum": einsum_macs}


class _Plain(nn.Module):
    """A model as a function of tensors, which is what fvcore traces."""

    def __init__(self, model: Model, keys: list[str], part: str):
        super().__init__()
        self.model, self.keys, self.part = model, keys, part

    def forward(self, *tensors: Tensor) -> Tensor:
        batch = dict(zip(self.keys, tensors, strict=True))
        return self.model.task.counted(self.model.backbone, batch)[self.part]()


def example(
    text_len: int, image: tuple[int, int], vocabulary_size: int, images: Sequence[str] = ("image",)
) -> dict[str, Tensor]:
    """A batch of one: `text_len` tokens, none of them padding, and `images` of `image` (height, width) pixels."""
    generator = torch.Generator().manual_seed(0)
    batch = {
        "text_ids": torch.randint(vocabulary_size, (1, text_len), generator=generator),
        "text_mask": torch.ones(1, text_len, dtype=torch.bool),
    }
    for name in images:
        batch[name] = torch.randn(1, 3, *image, generator=generator)
        batch[f"{name}_size"] = torch.tensor([image])
    return batch


def count(model: Model, batch: Batch) -> dict[str, int]:
    """MACs in inference of each part that an example is made up of."""
    return {part: count_part(model, batch, part) for part in model.task.counted(model.backbone, batch)}


def count_part(model: Model, batch: Batch, part: str) -> int:
    return traced(_Plain(model, list(batch), part), tuple(batch.values()))


@torch.no_grad()
def traced(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """MACs of what a module computes of these inputs in inference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore scripts a function while it is imported
        from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(module.eval(), inputs)
    analysis.set_op_handle(**HANDLERS)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    total = analysis.total()
    unknown = set(analysis.unsupported_ops()) - CHEAP
    if unknown:
        found = f"operators that are neither counted nor known to be cheap: {', '.join(sorted(unknown))}"
        raise RuntimeError(f"{found} (CHEAP_NAMES of vltune.costs.macs lists those of a few operations an element)")
    return int(total)


@contextmanager
def every_token(backbone: Backbone) -> Iterator[None]:
    """The published protocol computes the last layer for every token."""
    before, backbone.last_layer = backbone.last_layer, "all"
    try:
        yield
    finally:
        backbone.last_layer = before


def macs(model: Model, batch: Batch) -> dict[str, Any]:
    """`macs`, `additional_macs` over classifier-only tuning, both of folded inference with every token in the last layer,
    and `additional_macs_as_published`, what the paper counted.  Where an example has several parts, such as an image and a
    class, `parts` has the first two of each."""
    with every_token(model.backbone):
        with model.tuning.folded():
            total = count(model, batch)
        with model.tuning.off():
            base = count(model, batch)
        published = as_published(model, batch)
    parts = {part: {"macs": total[part], "additional_macs": total[part] - base[part]} for part in total}
    found = {name: sum(each[name] for each in parts.values()) for name in ("macs", "additional_macs")}
    return found | {"additional_macs_as_published": published} | ({"parts": parts} if len(parts) > 1 else {})


@torch.no_grad()
def as_published(model: Model, batch: Batch) -> int | None:
    """The sum over tuned sites of their published closed forms, at the sequence lengths that each site sees, once
    where a task passes it twice (NLVR2's two images); None where the paper has no such method."""
    tokens: dict[Site, int] = {}
    hooks = [
        # All but the last axis: a Swin site sees the tokens of every window.
        site.register_forward_pre_hook(lambda site, inputs: tokens.update({site: inputs[0].shape[:-1].numel()}))
        for site in model.tuning.sites
    ]
    try:
        run(model.eval(), batch)
    finally:
        for hook in hooks:
            hook.remove()
    return model.tuning.macs_as_published(tokens)


@torch.no_grad()
def run(model: Model, batch: Batch) -> None:
    """All that costs are counted on."""
    for part in model.task.counted(model.backbone, batch).values():
        part()


def parameters(model: Model) -> dict[str, int]:
    """`method_params`: the method's own; `task_params`: head, pooler, token types and class token; `total_params`."""

    def size(members) -> int:
        return sum(parameter.numel() for parameter in members)

    return {
        "method_params": size(model.method_parameters),
        "task_params": size(model.head_parameters) + size(model.shared_parameters),
        "total_params": size(model.parameters()),
    }
