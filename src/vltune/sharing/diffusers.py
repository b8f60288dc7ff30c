"""LoRAs as diffusers saves them, `pytorch_lora_weights.safetensors`, and as kohya's scripts do.

A LoRA there is W + (alpha / r) B A.  What we write has alpha = r, in its header too, and any factor in B: it is the same
for a program that reads the header, and for one that takes alpha for r.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.configuration import find
from vltune.errors import UserError
from vltune.methods.lora import ClipLoRA, LoRA
from vltune.sharing.adapter import check_parts
from vltune.sharing.changes import LowRankProduct, changes_weights, check_values

if TYPE_CHECKING:
    from torch import Tensor

    from vltune.backbones.backbone import Backbone
    from vltune.records.record import Record

TENSORS, HEADER = "pytorch_lora_weights.safetensors", "lora_adapter_metadata"
PARTS = {"unet": "unet", "text": "text_encoder"}
"""Parts of a backbone, as diffusers calls them."""
OF_DELTA = {"down.weight": "lora_A.weight", "up.weight": "lora_B.weight"}
BY_NAME = ("q_proj", "k_proj", "v_proj", "out_proj")
"""Layers of a text encoder by which diffusers knows whose names a file has."""
OLD = "text_model."  # before all names of a text encoder, in transformers before 5
FORM = re.compile(
    r"(?P<module>.+?)(?:\.processor)?[._]"
    r"(?:(?P<layer>to_[qkv]|to_out)_lora|lora|lora_linear_layer)"
    r"[._](?P<side>A|B|down|up)(?:\.default(?:_\d+)?)?\.weight"
)
KOHYA = re.compile(r"lora_(?P<part>unet|te|te1)_(?P<module>[^.]+)\.(?P<side>lora_down\.weight|lora_up\.weight|alpha)")
ATTENTION = re.compile(r"\.to_out$")  # whose layer is the first of two


def exported(record: Record, state: Mapping[str, Tensor], source: object) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a run's LoRA.  UserError where it is none, or not of a text-to-image model."""
    check_parts(record, source, "method")
    config, scale = record["config"], scale_of(record["config"]["method"], source)
    check_parts(record, source, "backbone")
    if not find(config["backbone"]["_target_"]).offers("denoise"):
        raise UserError(
            f"{source}: backbone={config['backbone']['name']} is no model of diffusers'; --format vltune takes any"
        )
    tensors, targets = {}, {part: {} for part in PARTS.values()}
    for key, tensor in state.items():
        site, _, name = key.removeprefix("backbone.").partition(".delta.")
        part, _, module = site.rpartition(".")[0].partition(".")
        if part not in PARTS or name not in OF_DELTA:
            raise UserError(f"{source}: {key} has no place in a LoRA of diffusers'; --format vltune takes any")
        theirs = PARTS[part]
        full = f"{theirs}.{OLD if part == 'text' else ''}{module}.{OF_DELTA[name]}"
        tensors[full] = (tensor * scale if name == "up.weight" else tensor).contiguous()
        targets[theirs][module] = tensor.shape[1 if name == "up.weight" else 0]
    if (text := targets[PARTS["text"]]) and not any(module.endswith(BY_NAME) for module in text):
        told = "diffusers loads none of a text encoder's LoRA without a layer of its attention"
        raise UserError(f"{source}: {told}; --format vltune takes any")
    settings = {
        f"{part}.{name}": value for part, ranks in targets.items() if ranks for name, value in adapter(ranks).items()
    }
    return tensors, {"format": "pt", HEADER: json.dumps(settings, indent=2, sort_keys=True)}


def scale_of(method: Mapping[str, Any], source: object) -> float:
    """What a LoRA's branch is multiplied with.  UserError where a method is none."""
    kind = find(method["_target_"])
    if kind not in (LoRA, ClipLoRA):
        raise UserError(
            f"{source}: method={method['name']} has no form in diffusers, a LoRA has; --format vltune takes any"
        )
    return method["rank"] ** -0.5 if kind is ClipLoRA else 1.0


def adapter(ranks: Mapping[str, int]) -> dict[str, Any]:
    """PEFT's settings of a part.  ranks: {module: r}"""
    rank = max(ranks.values())
    others = {module: each for module, each in ranks.items() if each != rank}
    own = {"r": rank, "lora_alpha": rank, "rank_pattern": others, "alpha_pattern": others}
    return {**own, "target_modules": [*ranks], "bias": "none", "use_dora": False, "use_rslora": False}


def read(path: Path, backbone: Backbone) -> dict[str, LowRankProduct]:
    """{our name of a layer: what is made of it} of a file, or a folder that holds one.

    UserError where it is no LoRA, or not whole."""
    from vltune.sharing.adapter import metadata
    from vltune.weights.files import read_safetensors

    file = path / TENSORS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such file; only safetensors are read, save the LoRA as such")
    tensors = read_safetensors(file)
    for key, tensor in tensors.items():
        if "magnitude" in key or "dora_scale" in key:
            raise UserError(f"{file}: {key} is a DoRA's; only a LoRA is read")
        check_values(file, key, tensor.float() if key.endswith(".alpha") else tensor)
    if any(key.startswith("lora_te2_") for key in tensors):
        raise UserError(f"{file}: a LoRA of SDXL, which has a second text encoder; give one of the same base")
    kohya = any(key.startswith("lora_") for key in tensors)
    halves, alphas = kohyas(tensors, backbone, file) if kohya else theirs(tensors, metadata(file), file)
    return {module: product(module, sides, alphas, file) for module, sides in halves.items()}


def product(module: str, sides: Mapping[str, Tensor], alphas: Mapping[str, float], file: Path) -> LowRankProduct:
    """Convolutions too: the product of both maps, each with what it reads in a row."""
    if sides.keys() != {"down", "up"} or sides["up"].flatten(1).shape[1] != len(sides["down"]):
        raise UserError(f"{file}: {module} has not both halves of a LoRA, of one rank")
    down, up = (sides[name].flatten(1).float() for name in ("down", "up"))
    return LowRankProduct(down, up * (alphas.get(module, len(down)) / len(down)))


def theirs(tensors: Mapping[str, Tensor], header: Mapping[str, str], file: Path) -> tuple[dict, dict]:
    """({module: {side: its matrix}}, {module: alpha}) of a file of diffusers', of today's names or of earlier ones."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if (found := FORM.fullmatch(key)) is None:
            raise UserError(f"{file}: {key} is no part of a LoRA of diffusers'")
        module = found["module"] + (f".{found['layer']}" if found["layer"] else "")
        side = {"A": "down", "B": "up"}.get(found["side"], found["side"])
        halves.setdefault(ours(module), {})[side] = tensor
    try:
        settings = json.loads(header.get(HEADER, "{}"))
        if any(settings.get(f"{part}.use_rslora") for part in PARTS.values()):
            raise UserError(f"{file}: use_rslora is not read; save the LoRA without it")
        starts = (settings.get(f"{part}.init_lora_weights") for part in PARTS.values())
        if start := next(filter(changes_weights, starts), None):
            raise UserError(
                f"{file}: init_lora_weights={start} changed the weights beneath; convert it with PEFT first"
            )
        return halves, {module: alpha for module in halves if (alpha := alpha_of(module, settings)) is not None}
    except (ValueError, TypeError, AttributeError, OverflowError, re.error):
        raise UserError(f"{file}: its header's {HEADER} cannot be read; save the LoRA again") from None


def ours(module: str) -> str:
    """The name of a layer here: `text_encoder.text_model.encoder...` is `text.encoder...`.  Without a part, as early files
    are, it is the UNet's."""
    module = ATTENTION.sub(".to_out.0", module)
    if not module.startswith(tuple(f"{part}." for part in PARTS.values())):
        module = f"unet.{module}"
    part, _, name = module.partition(".")
    part = {theirs: own for own, theirs in PARTS.items()}.get(part, part)
    return f"{part}.{name.removeprefix(OLD)}"


def alpha_of(module: str, settings: Mapping[str, Any]) -> float | None:
    """What a file's header says of a layer, None where it says nothing; a pattern's key is a regular expression of the end
    of its name."""
    part, _, name = module.partition(".")
    alpha, patterns = (settings.get(f"{PARTS.get(part, part)}.{key}") for key in ("lora_alpha", "alpha_pattern"))
    names = [name, *([f"{OLD}{name}"] if part == "text" else [])]
    own = (
        value
        for key, value in (patterns or {}).items()
        if any(re.fullmatch(rf"(.*\.)?({key})", each) for each in names)
    )
    alpha = next(own, alpha)
    return None if alpha is None else float(alpha)


def kohyas(tensors: Mapping[str, Tensor], backbone: Backbone, file: Path) -> tuple[dict, dict]:
    """The same of a file of kohya's, whose names have `_` for every dot."""
    known = {name.replace(".", "_"): name for name, _ in backbone.named_modules()}
    halves: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    for key, tensor in tensors.items():
        if (found := KOHYA.fullmatch(key)) is None:
            raise UserError(f"{file}: {key} is no part of a LoRA of kohya's")
        part = "unet" if found["part"] == "unet" else "text"
        module = f"{part}_{found['module'].removeprefix('text_model_')}"
        if module not in known:
            raise UserError(f"{file}: tunes {plain_name(key)}, which the backbone has not: of another base")
        if found["side"] == "alpha":
            if tensor.numel() != 1:
                raise UserError(f"{file}: {key} has {tensor.numel()} values, and a layer has one alpha")
            alphas[known[module]] = float(tensor)
        else:
            side = found["side"].removeprefix("lora_").removesuffix(".weight")
            halves.setdefault(known[module], {})[side] = tensor
    return halves, alphas


def plain_name(key: str) -> str:
    return key.partition(".")[0]
