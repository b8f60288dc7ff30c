"""A LoRA, DoRA or (IA)3 that was trained elsewhere with Hugging Face PEFT on transformers' model, or a LoRA with diffusers
or kohya's scripts, folded into our backbone's weights.

The scale of a LoRA is alpha / r, or alpha / sqrt(r) (rslora); patterns give a layer its own alpha or r.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.errors import UserError
from vltune.records.record import read_json
from vltune.sharing import diffusers
from vltune.sharing.changes import LowRankProduct, Rescaled, changes_weights, check_values
from vltune.sharing.layout import BACKBONES, INSIDE, their_name
from vltune.sharing.peft_types import CONFIG, START, TENSORS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vltune.backbones.backbone import Backbone
    from vltune.sharing.changes import TunedLayer

KINDS = ("LORA", "IA3")
OTHER = ("use_qalora", "use_bdlora", "lora_bias", "layer_replication", "alora_invocation_tokens")
"""Options that make another equation of it."""


def convert(folder: Path, config: dict, out: Path) -> int:
    """Writes the configuration's backbone, pretrained, with a folder's adapter in it; returns how many layers changed."""
    from vltune.assemble.checkpoint import CHECKPOINT
    from vltune.assemble.data import tokenizer
    from vltune.assemble.factory import build
    from vltune.assemble.weights import check_told, weight_files
    from vltune.engine.artifacts import write_tensors
    from vltune.records.record import check_out
    from vltune.weights.backbones import load_backbone
    from vltune.weights.heads import matching

    check_out(out)
    if "pipelines" in config["backbone"] and config["backbone"]["model"] == CHECKPOINT:
        raise UserError(
            "backbone.model=checkpoint: what the model predicts, its noise and its padding stand in the folder that it is "
            "read from, and the file that would be written has no place for them; import into backbone.model=sd15 or sd21"
        )
    name, backbone = f"backbone={config['backbone']['name']}", build(config["backbone"])
    found = diffusers.read(folder, backbone) if backbone.offers("denoise") else read(folder)
    files = weight_files(config["weights"], config["backbone"])
    if "backbone" not in files:
        raise UserError(
            "weights=null: an adapter is imported into the pretrained weights that it was trained on; name them"
        )
    check_told(files["backbone"], config["backbone"])
    load_backbone(backbone, files["backbone"], tokenizer(config["backbone"]).cls_id, name)
    add(backbone, found, folder, name)
    write_tensors(out, backbone.state_dict() | matching(files["backbone"]), {"format": "pt"})
    return len(found)


def read(folder: Path) -> dict[str, TunedLayer]:
    """{module, as transformers' backbone names it: what is made of it}.

    UserError where the files are not there, or hold anything but a LoRA, a DoRA or an (IA)3; nothing of them is run."""
    from vltune.weights.files import read_safetensors

    config, file = read_json(folder / CONFIG), folder / TENSORS
    check(config, folder / CONFIG)
    if not file.is_file():
        raise UserError(f"{file}: no such file; only safetensors are read, save the adapter as such")
    tensors = {key.removeprefix(START): tensor for key, tensor in read_safetensors(file).items()}
    for key, tensor in tensors.items():
        check_values(file, key, tensor)
    found = (low_ranks if config["peft_type"] == "LORA" else scales)(config, tensors, file)
    if not found:
        raise UserError(f"{file}: holds no {config['peft_type']}")
    return found


def check(config: Any, source: Path) -> None:
    if not isinstance(config, dict) or config.get("peft_type") not in KINDS:
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise UserError(f"{source}: peft_type={kind}: only {' and '.join(KINDS)} can be imported")
    for name in OTHER:
        if config.get(name):
            raise UserError(f"{source}: {name}={json.dumps(config[name])}: only a LoRA or a DoRA can be imported")
    if (bias := config.get("bias", "none")) != "none":
        raise UserError(f"{source}: bias={bias}: it trained biases as well, and only a LoRA or a DoRA can be imported")
    if changes_weights(start := config.get("init_lora_weights")):
        raise UserError(f"{source}: init_lora_weights={start} changed the weights beneath; convert it with PEFT first")
    if saved := config.get("modules_to_save"):
        raise UserError(f"{source}: modules_to_save={json.dumps(saved)}: it trained whole modules as well")


def low_ranks(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> dict[str, TunedLayer]:
    """Of a LoRA or a DoRA."""
    found: dict[str, TunedLayer] = {}
    rest = dict(tensors)
    for key, down in tensors.items():
        module, matrix, _ = key.partition(".lora_A.weight")
        if not matrix:
            continue
        del rest[key]
        up = rest.pop(f"{module}.lora_B.weight", None)
        if up is None or down.dim() != 2 or up.dim() != 2 or up.shape[1] != len(down):
            raise UserError(f"{source}: {key} has no lora_B of its rank, {', '.join(map(str, down.shape[:1]))}")
        magnitude = None
        if config.get("use_dora"):
            magnitude = rest.pop(f"{module}.lora_magnitude_vector", up[:0]).float()
        if magnitude is not None and magnitude.shape != up.shape[:1]:
            raise UserError(f"{source}: {module} has no lora_magnitude_vector of its width, {len(up)}")
        up = scale(config, module, len(down), source) * up.float()
        found[module.removeprefix(INSIDE)] = LowRankProduct(
            down.float(), up, None if magnitude is None else magnitude.float()
        )
    if rest:
        raise UserError(f"{source}: {next(iter(rest))} is no part of a LoRA or a DoRA as its configuration says it")
    return found


def scales(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> dict[str, TunedLayer]:
    """Of an (IA)3."""
    found: dict[str, TunedLayer] = {}
    for key, factors in tensors.items():
        module, vector, more = key.partition(".ia3_l")
        if not vector or more or factors.dim() != 2 or 1 not in factors.shape:
            raise UserError(f"{source}: {key} is no part of an (IA)3")
        found[module.removeprefix(INSIDE)] = Rescaled(factors.float())
    return found


def scale(config: Mapping[str, Any], module: str, rank: int, source: Path) -> float:
    """s of a module.  A pattern's key is a regular expression of the end of its name, the first that matches counts."""
    if not isinstance(patterns := config.get("alpha_pattern") or {}, dict):
        raise UserError(f"{source}: alpha_pattern={json.dumps(patterns)} is no mapping from layers to numbers")
    alpha = config.get("lora_alpha", 8)
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        except re.error:
            raise UserError(f"{source}: alpha_pattern {pattern!r} is no regular expression") from None
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise UserError(f"{source}: lora_alpha={alpha} is no number")
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def add(backbone: Backbone, found: Mapping[str, TunedLayer], source: Path, name: str) -> None:
    """Changes each layer.  UserError, before anything is changed, where a layer is not there or is of another size.  name:
    what the backbone is called."""
    import torch

    layers = layers_of(backbone, name)
    for module, change in found.items():
        if module not in layers:
            raise UserError(f"{source}: tunes {module}, which is no linear layer of {name}")
        size = tuple(layers[module].weight.flatten(1).shape)
        if any(given not in (None, own) for given, own in zip(change.size, size, strict=True)):
            raise UserError(
                f"{source}: tunes {module} of size {change.size}, which in {name} is {size}: of another model"
            )
    with torch.no_grad():
        for module, change in found.items():
            layer = layers[module]
            weight, bias = change(layer.weight, layer.bias)
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)


def layers_of(backbone: Backbone, name: str) -> dict[str, nn.Module]:
    """What an adapter may change, by the names in its file: those of a model whose modules are another program's own, or
    transformers' for ours.  UserError where there are none."""
    from torch import nn

    if backbone.offers("denoise"):
        return {module: layer for module, layer in backbone.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    if type(backbone) not in BACKBONES:
        raise UserError(f"{name}: transformers has no such model, so that no adapter of one can be imported")
    return {
        their_name(type(backbone), module).removeprefix(INSIDE): layer
        for module, layer in backbone.named_modules()
        if isinstance(layer, nn.Linear) and their_name(type(backbone), module)
    }
