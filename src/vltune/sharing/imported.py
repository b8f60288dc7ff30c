"""A LoRA that was trained elsewhere with Hugging Face PEFT on transformers' model, folded into our backbone's weights.

W + s B A,  s = alpha / r, or alpha / sqrt(r) (rslora); patterns give a layer its own alpha or r
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.errors import UserError
from vltune.records.record import read_json
from vltune.sharing.layout import BACKBONES, INSIDE, their_name
from vltune.sharing.lora import CONFIG, START, TENSORS

if TYPE_CHECKING:
    from torch import Tensor

    from vltune.backbones.backbone import Backbone

OTHER = ("use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "alora_invocation_tokens")
"""Options that make another equation of it."""
CHANGED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts that change the weights beneath."""


def convert(folder: Path, config: dict, out: Path) -> int:
    """Writes the configuration's backbone, pretrained, with a folder's LoRA in it; returns how many layers that changed."""
    from vltune.assemble.data import tokenizer
    from vltune.assemble.factory import build
    from vltune.assemble.weights import weight_files
    from vltune.engine.artifacts import write_tensors
    from vltune.records.record import check_out
    from vltune.weights.backbones import load_backbone

    check_out(out)
    found = read(folder)
    name, backbone = f"backbone={config['backbone']['name']}", build(config["backbone"])
    files = weight_files(config["weights"], config["backbone"])
    if "backbone" not in files:
        raise UserError(
            "weights=null: a LoRA is imported into the pretrained weights that it was trained on; name them"
        )
    load_backbone(backbone, files["backbone"], tokenizer(config["backbone"]).cls_id, name)
    add(backbone, found, folder, name)
    write_tensors(out, backbone.state_dict(), {"format": "pt"})
    return len(found)


def read(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """{module, as transformers' backbone names it: (A, s B)}, A: (r, in), B: (out, r).

    UserError where the files are not there, or hold anything but a plain LoRA; nothing of them is run."""
    from vltune.weights.files import read_safetensors

    config = read_json(folder / CONFIG)
    check(config, folder / CONFIG)
    if not (folder / TENSORS).is_file():
        raise UserError(f"{folder / TENSORS}: no such file; only safetensors are read, save the adapter as such")
    return pairs(config, read_safetensors(folder / TENSORS), folder / TENSORS)


def check(config: Any, source: Path) -> None:
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise UserError(f"{source}: peft_type={kind}: only LORA can be imported")
    for name in OTHER:
        if config.get(name):
            raise UserError(f"{source}: {name}={json.dumps(config[name])}: only a plain LoRA can be imported")
    if (bias := config.get("bias", "none")) != "none":
        raise UserError(f"{source}: bias={bias}: it trained biases as well, and only a plain LoRA can be imported")
    if (start := str(config.get("init_lora_weights"))).startswith(CHANGED):
        raise UserError(f"{source}: init_lora_weights={start} changed the weights beneath; convert it with PEFT first")
    if saved := config.get("modules_to_save"):
        raise UserError(
            f"{source}: modules_to_save={json.dumps(saved)}: it trained more than a LoRA, which alone is read"
        )


def pairs(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """`read`'s, of a configuration and its tensors."""
    found = {}
    for key, down in tensors.items():
        module, matrix, _ = key.removeprefix(START).partition(".lora_A.weight")
        if matrix:
            up = tensors.get(f"{START}{module}.lora_B.weight")
            if up is None or down.dim() != 2 or up.dim() != 2 or up.shape[1] != len(down):
                raise UserError(f"{source}: {key} has no lora_B of its rank, {len(down)}")
            if not (down.isfinite().all() and up.isfinite().all()):
                raise UserError(f"{source}: {key} or its lora_B has values that are NaN or infinite")
            found[module.removeprefix(INSIDE)] = down.float(), scale(config, module, len(down), source) * up.float()
        elif not (key.endswith(".lora_B.weight") and key.replace(".lora_B.", ".lora_A.") in tensors):
            raise UserError(f"{source}: {key} is no part of a plain LoRA, which alone is read")
    if not found:
        raise UserError(f"{source}: holds no LoRA")
    return found


def scale(config: Mapping[str, Any], module: str, rank: int, source: Path) -> float:
    """s of a module.  A pattern's key is a regular expression of the end of its name, the first that matches counts."""
    patterns = config.get("alpha_pattern") or {}
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


def add(backbone: Backbone, found: Mapping[str, tuple[Tensor, Tensor]], source: Path, name: str) -> None:
    """Adds each product to its layer's weight.  UserError, before anything is changed, where a layer is not there or is
    of another size.  name: what the backbone is called."""
    import torch

    if type(backbone) not in BACKBONES:
        raise UserError(f"{name}: transformers has no such model, so that no LoRA of one can be imported")
    layers = {
        their_name(type(backbone), module).removeprefix(INSIDE): layer
        for module, layer in backbone.named_modules()
        if isinstance(layer, torch.nn.Linear) and their_name(type(backbone), module)
    }
    for module, (down, up) in found.items():
        if module not in layers:
            raise UserError(f"{source}: tunes {module}, which is no linear layer of {name}")
        size, given = tuple(layers[module].weight.shape), (len(up), down.shape[1])
        if size != given:
            raise UserError(f"{source}: tunes {module} of size {given}, which in {name} is {size}: of another model")
    with torch.no_grad():
        for module, (down, up) in found.items():
            layers[module].weight += up @ down
