"""A run's backbone and head as one model of transformers', its method folded into the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vltune.assemble.data import tokenizer
from vltune.assemble.model import build_pretrained
from vltune.assemble.weights import fingerprints_of, weight_files
from vltune.engine.artifacts import take
from vltune.errors import UserError
from vltune.model import Model
from vltune.records.record import Record
from vltune.sharing.adapter import check_parts
from vltune.sharing.layout import BACKBONES, CLASS_TOKEN, INSIDE, Counterpart, counterpart, outputs
from vltune.sites import PartSite
from vltune.weights.keys import flat
from vltune.weights.maps.vilt import split_positions

if TYPE_CHECKING:
    from torch import Tensor

SAME = 1e-6  # apart at most, of order 1: another machine's sums


def merged(
    record: Record, state: Mapping[str, Tensor], source: Path
) -> tuple[dict[str, Any], dict[str, Tensor], Tensor | None]:
    """transformers' configuration and tensors of the whole model, and its class token (`own_token`).

    UserError where the method does not fold into weights, and where the pretrained weights are not the run's."""
    model = rebuilt(record, state, source)
    fold(model, source)
    config, there = record["config"], counterpart(record, source)
    tensors = {f"{INSIDE}{name}": tensor for name, tensor in translated(model).items()}
    tensors |= {there.head + name.removeprefix("head"): tensor for name, tensor in model.task.state_dict().items()}
    return model_config(config["backbone"], there, labels(state)), tensors, own_token(model, record)


def rebuilt(record: Record, state: Mapping[str, Tensor], source: Path) -> Model:
    """A run's model, tuned, on its own pretrained weights.  UserError where these are not here any more."""
    check_parts(record, source)
    config = record["config"]
    files = weight_files(config["weights"], config["backbone"])
    now, before = fingerprints_of(files), (record.get("fingerprints") or {}).get("weights")
    if now != before:
        raise UserError(f"{source}: was made with other weights than {config['weights']} now holds: give back its own")
    groups = (config[group] for group in ("weights", "backbone", "task", "method"))
    torch.manual_seed(record["identity"]["seed"])  # what starts at random where there are no weights
    model = build_pretrained(*groups, {"answers": labels(state)}).eval()
    take(model, dict(state), source)
    return model


def labels(state: Mapping[str, Tensor]) -> list[str]:
    """Each is called by its number, as the data counts it."""
    return [str(label) for label in range(outputs(state))]


def own_token(model: Model, record: Record) -> Tensor | None:
    """The class token, trained or as the pretrained weights hold it, where it is another than the [CLS] that transformers
    has in its place; None where it is the same."""
    token = model.backbone.class_token.detach().clone()
    model.backbone.start_class_token(tokenizer(record["config"]["backbone"]).cls_id)
    theirs = model.backbone.class_token.detach().clone()
    model.backbone.class_token.data.copy_(token)
    return None if torch.allclose(token, theirs, rtol=0, atol=SAME) else token


@torch.no_grad()
def fold(model: Model, source: Path) -> None:
    """Has the backbone's own layers compute what they do with the method, and takes the method away."""
    for site in model.tuning.sites:
        part = site.delta.fold(site.part) if isinstance(site, PartSite) else None
        if not hasattr(part, "weight"):
            raise UserError(
                f"{source}: what this method does at {site.role} does not fold into a weight; --format vltune takes any"
            )
        site.part.weight.copy_(part.weight)
        if part.bias is not None:
            site.part.bias.copy_(part.bias)
    model.tuning.detach()


def translated(model: Model) -> dict[str, Tensor]:
    """The backbone's tensors by transformers' names, the class token left out.

    KeyError where one has no name there."""
    own = model.backbone.state_dict()
    own.pop(CLASS_TOKEN.removeprefix("backbone."))
    found, back = {}, backwards(model.backbone)
    for theirs, ours, change in BACKBONES[type(model.backbone)]:
        for layer in count() if "{i}" in theirs else (0,):
            names = [key.replace("{i}", str(layer)) for key in ([ours] if isinstance(ours, str) else ours)]
            if names[0] not in own:
                break
            found[theirs.replace("{i}", str(layer))] = back[change](*(own.pop(name) for name in names))
    if own:
        raise KeyError(", ".join(own))
    return found


def backwards(backbone: Any) -> dict[Callable | None, Callable[..., Tensor]]:
    """What undoes a rule's change."""
    size = backbone.image.patch_size
    return {
        None: lambda tensor: tensor,
        flat: partial(torch.Tensor.unflatten, dim=1, sizes=(3, size, size)),
        split_positions: lambda first, grid: torch.cat([first, grid.flatten(0, 1)[None]], dim=1),
    }


def model_config(spec: Mapping[str, Any], there: Counterpart, labels: Sequence[str]) -> dict[str, Any]:
    """`config.json`.  spec: the backbone's configuration.

    transformers has one epsilon, ours are 1e-12 in the text's norm and 1e-6 in the blocks': the text's is taken, whose
    inputs are the smallest.  On vilt_mini logits are then 1e-5 apart, with the other 1e-4."""
    return {
        "architectures": [there.name],
        "model_type": "vilt",
        "hidden_size": spec["width"],
        "num_hidden_layers": spec["layers"],
        "num_attention_heads": spec["heads"],
        "intermediate_size": spec["hidden"],
        "hidden_act": spec["activation"],
        "hidden_dropout_prob": spec["dropout"],
        "attention_probs_dropout_prob": 0.0,  # which ours has none of
        "layer_norm_eps": 1e-12,
        "image_size": spec["image_size"],
        "patch_size": spec["patch_size"],
        "vocab_size": spec["vocabulary_size"],
        "max_position_embeddings": spec["max_text_len"],
        "modality_type_vocab_size": spec["token_types"],
        "max_image_length": -1,  # a run that left patches out is refused
        "id2label": dict(zip(labels, labels, strict=True)),
        "label2id": {label: int(label) for label in labels},
        **there.settings,
    }
