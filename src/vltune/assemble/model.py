"""A run's model, with its pretrained weights or without numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vltune.assemble.data import facts
from vltune.assemble.factory import build, build_method
from vltune.assemble.weights import load

if TYPE_CHECKING:
    from torch import Tensor

    from vltune.model import Model
    from vltune.settings.backbone import BackboneSettings
    from vltune.settings.dataset import DatasetSettings
    from vltune.settings.kinds import Spec
    from vltune.settings.task import TaskSettings


def build_pretrained(
    weights: str | None, backbone: BackboneSettings, task: TaskSettings, method: Spec, facts: dict
) -> Model:
    """A model with the pretrained weights that the configuration names.  facts: see `Data`."""
    from vltune.model import Model

    built, head = build_modules(backbone, task, facts)
    load(weights, backbone, task, built, head)
    head.begin(built)
    return Model(built, head, build_method(method))


def build_model(backbone: BackboneSettings, task: TaskSettings, method: Spec, facts: dict) -> Model:
    """A model with random weights."""
    from vltune.model import Model

    return Model(*build_modules(backbone, task, facts), build_method(method))


def build_modules(backbone: BackboneSettings, task: TaskSettings, facts: dict) -> tuple:
    """Backbone and task's head."""
    built = build(backbone)
    return built, build(task, in_width=built.pooled_width, width=built.width, **facts)


def build_shapes(backbone: BackboneSettings, task: TaskSettings, dataset: DatasetSettings) -> Model:
    """The model without its method, on the meta device: shapes without numbers, built in a fraction of a second."""
    import torch

    with torch.device("meta"):
        return build_model(backbone, task, {"_target_": "vltune.tuning.Method"}, facts(dataset))


def protocol(backbone: BackboneSettings, model: Model) -> dict[str, Tensor]:
    """One example of the sizes that the backbone's costs are counted on."""
    from vltune.costs import macs

    sizes = backbone["protocol"]
    return macs.example(sizes["text_len"], sizes["image"], backbone["vocabulary_size"], model.task.images)
