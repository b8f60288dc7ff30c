"""A run's model, with its pretrained weights or without numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vltune.assemble.data import facts
from vltune.assemble.factory import build, build_method
from vltune.assemble.weights import load

if TYPE_CHECKING:
    from torch import Tensor

    from vltune.model import Model


def build_model(config: dict, facts: dict, pretrained: bool = True) -> Model:
    """A model with the pretrained weights that the configuration names, or with random ones.  facts: see `Data`."""
    from vltune.model import Model

    backbone = build(config["backbone"])
    task = build(config["task"], in_width=backbone.pooled_width, width=backbone.width, **facts)
    if pretrained:
        load(config, backbone, task)
    return Model(backbone, task, build_method(config["method"]))


def build_shapes(config: dict) -> Model:
    """The model without its method, on the meta device: shapes without numbers, built in a fraction of a second."""
    import torch

    with torch.device("meta"):
        return build_model(config | {"method": {"_target_": "vltune.tuning.Method"}}, facts(config), pretrained=False)


def protocol(config: dict, model: Model) -> dict[str, Tensor]:
    """One example of the sizes that the backbone's costs are counted on."""
    from vltune.costs import macs

    spec, sizes = config["backbone"], config["backbone"]["protocol"]
    return macs.example(sizes["text_len"], sizes["image"], spec["vocabulary_size"], model.task.images)
