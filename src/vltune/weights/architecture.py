"""What a CLIP checkpoint is, in the words of `backbone`: its sizes, and what its tensors cannot tell.

Sizes are those of its tensors.  The number of heads, the activation, the end-of-text token and how images are prepared
leave no trace in these: a transformers folder says them in `config.json` and `processor_config.json`, before transformers 5
`preprocessor_config.json`, open_clip's in `open_clip_config.json`.  Of a file alone the heads are 64 wide, as OpenAI's and
most of open_clip's; and the activation is QuickGELU where it is a TorchScript archive, which OpenAI's are, else not known.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vltune.errors import UserError
from vltune.streamed import once
from vltune.weights import foreign, forms
from vltune.weights.backbones import OUR_TOWERS, OURS, TUNED, TUNED_TOWERS
from vltune.weights.files import read
from vltune.weights.finding import CONFIG, OF_IMAGES, OPEN_CLIP_CONFIG, PREPROCESSOR, PROCESSOR, parts
from vltune.weights.keys import recognise, recognised, translate
from vltune.weights.maps.clip import FAMILIES

HEAD_WIDTH = 64
OTHER_HEADS = (1280, 1408, 1664)  # widths of image towers of open_clip whose heads are not so wide: H, g and bigG
WORDS = 49408  # of CLIP's vocabulary, the last of which ends a text; a table of more rows is padded
ACTIVATIONS = {"quick_gelu": "QuickGELU", "gelu": "GELU", "relu": "ReLU"}  # as transformers calls them, as people do
EPS = 1e-5


@dataclass(frozen=True)
class Described:
    """A configuration beside a checkpoint.  towers: {text and image: {size: its value}}; dim: of the space of both."""

    file: Path
    towers: dict[str, dict[str, int]]
    dim: int
    activation: str


@dataclass(frozen=True)
class Architecture:
    """sizes: an entry of `backbone.models`.  activation: None where it is not known; source: what told it.  pixels: `mean`
    and `std` of pixel values in [0, 1], where they are told."""

    sizes: dict[str, Any]
    activation: str | None
    source: str
    pixels: dict[str, list[float]]


def architecture(path: Path) -> Architecture:
    """Of a checkpoint of CLIP.  UserError where it is of another family, where a configuration beside it is another model's
    or asks for what the backbone cannot do, and where the number of its heads is not known."""
    state = {name: tensor.to("meta") for name, tensor in read(path).items()}
    foreign.refuse(state, path)
    refuse_own(state, path)
    family = recognise(state, FAMILIES, path)
    tensors = {key: tensor for _, key, tensor in translate(family.prepare(state), family, path)}
    sizes, beside = of_tensors(tensors, path), described(path)
    if beside is not None:
        check_same(sizes, beside, path)
    for part in ("text", "image"):
        sizes[part]["heads"] = (
            heads(sizes[part]["width"], part, path) if beside is None else beside.towers[part]["heads"]
        )
    if beside is not None:
        sizes["text"]["end_of_text"] = beside.towers["text"]["end_of_text"]
    known, source = activation(path)
    return Architecture(sizes, known, source, pixels(path, sizes["image"]["image_size"]))


def refuse_own(state: dict[str, Tensor], path: Path) -> None:
    """UserError where it is vltune's own: its heads, and how its images are prepared, are its configuration's word."""
    if family := recognised(state, (OURS, TUNED, OUR_TOWERS, TUNED_TOWERS)):
        told = f"in the layout of {family.name}, and its record says its sizes, not the file"
        raise UserError(
            f"{path}: {told}: choose the backbone.model that it is of; checkpoint takes another program's file"
        )


def activation(path: Path) -> tuple[str | None, str]:
    """What lies between the two maps of its feed-forward layers, and what tells it; no tensor is read."""
    if (beside := described(path)) is not None:
        return beside.activation, beside.file.name
    record = content_of(path.with_suffix(".json")) or {}
    if own := ((record.get("config") or {}).get("backbone") or {}).get("activation"):
        return own, f"{path.stem}.json"  # of a run, which tuned it
    tower = content_of(path.parent / CONFIG) or {}
    if tower.get("model_type") == "clip_vision_model":
        return tower.get("hidden_act", "quick_gelu"), CONFIG
    if forms.form(parts(path)[0]) == forms.TORCHSCRIPT:
        return "quick_gelu", "a TorchScript archive, as OpenAI's are"
    return None, "nothing beside it"


def check_heads(path: Path, sizes: Mapping[str, Any], chosen: str) -> None:
    """UserError where a configuration beside a checkpoint says other heads than the model has.  chosen: as it is typed."""
    if (beside := described(path)) is None:
        return
    for part in ("text", "image"):
        theirs, ours = (tower["heads"] for tower in (beside.towers[part], sizes[part]))
        if beside.towers[part]["width"] == sizes[part]["width"] and theirs != ours:  # else it does not fit anyway
            told = f"its {part} tower has {theirs} heads ({beside.file.name}), that of {chosen} {ours}"
            raise UserError(f"{path}: {told}; backbone.model=checkpoint takes the file's own")


def check_pixels(path: Path, transform: Mapping[str, Any], chosen: str) -> None:
    """UserError where a file beside a checkpoint says that images are prepared otherwise than here; of another resolution,
    which positions are interpolated to, a line on standard error."""
    if (found := normalised(path)) is None:
        return
    file, content, theirs = found
    for what, values in theirs.items():
        if any(abs(one - other) > 1e-3 for one, other in zip(values, transform[what], strict=True)):
            told = f"pixels have {what} {values} ({file.name}), and {list(transform[what])} with {chosen}"
            raise UserError(f"{path}: {told}; backbone.model=checkpoint takes the file's own")
    own = resolution(content)
    check_ways(file, content, own)
    if own != (here := transform.get("size", own)) and own is not None:
        told = f"images are of {own} x {own} pixels ({file.name}), and of {here} x {here} with {chosen}"
        print(f"{path}: {told}: positions are interpolated", file=sys.stderr)


def check_activation(path: Path, chosen: str, setting: str) -> None:
    """UserError where a checkpoint was trained with another activation than the model has.  setting: that chooses it."""
    known, source = activation(path)
    if known not in (None, chosen):
        theirs, ours = (ACTIVATIONS.get(name, name) for name in (known, chosen))
        raise UserError(f"{path}: has {theirs} ({source}), and {setting}={chosen} is {ours}; give {setting}={known}")


def of_tensors(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Sizes without heads, by the shapes of tensors under our names."""
    try:
        grid, patch = tensors["image.position"].shape[0], tensors["image.patch.weight"].shape[1]
        patch_size = round((patch / 3) ** 0.5)
        rows, width = tensors["text.word.weight"].shape
        return {
            "text": {
                "width": width,
                **layers(tensors, "text"),
                "vocabulary_size": rows,
                "positions": tensors["text.position"].shape[0],
                "end_of_text": min(rows, WORDS) - 1,
            },
            "image": {
                "width": tensors["image.patch.weight"].shape[0],
                **layers(tensors, "image"),
                "patch_size": patch_size,
                "image_size": round(grid**0.5) * patch_size,
            },
            "dim": tensors["text_projection.weight"].shape[0],
        }
    except KeyError as error:
        raise UserError(f"{path}: is no whole CLIP, it lacks what is {error.args[0]} here; use another file") from None
    except (IndexError, ValueError):
        told = "its embeddings, projections or layers have shapes that no CLIP's have"
        raise UserError(f"{path}: is no CLIP, {told}; use another file") from None


def layers(tensors: Mapping[str, Tensor], part: str) -> dict[str, int]:
    found = {key.split(".")[2] for key in tensors if key.startswith(f"{part}.blocks.")}
    return {"layers": len(found), "hidden": tensors[f"{part}.blocks.0.feed_forward.up.weight"].shape[0]}


def heads(width: int, part: str, path: Path) -> int:
    if width % HEAD_WIDTH or (part == "image" and width in OTHER_HEADS):
        other = f"is no multiple of {HEAD_WIDTH}" if width % HEAD_WIDTH else "has heads of other widths in open_clip"
        told = f"the {part} tower's width of {width} {other}"
        raise UserError(
            f"{path}: how many heads it has is not known ({told}); put its {CONFIG} or {OPEN_CLIP_CONFIG} beside"
        )
    return width // HEAD_WIDTH


def check_same(sizes: Mapping[str, Any], beside: Described, path: Path) -> None:
    """UserError where a configuration says other sizes than the tensors have."""
    told = {f"{part} {name}": size for part, tower in beside.towers.items() for name, size in tower.items()}
    found = {f"{part} {name}": size for part in beside.towers for name, size in sizes[part].items()}
    told, found = told | {"dim": beside.dim}, found | {"dim": sizes["dim"]}
    told = {name: size for name, size in told.items() if not name.endswith("end_of_text")}
    if other := [name for name, size in found.items() if told.get(name, size) != size]:
        name = other[0]
        raise UserError(
            f"{beside.file}: says {name.replace('_', ' ')} {told[name]}, and {path.name} has {found[name]}: they are not "
            "of one model"
        )


def described(path: Path) -> Described | None:
    """The configuration beside a checkpoint; None where there is none of a CLIP."""
    names = [CONFIG, OPEN_CLIP_CONFIG]
    for name in reversed(names) if path.name.startswith("open_clip") else names:
        content = content_of(file := path.parent / name)
        if content is not None and (read_as := READERS[name](content)):
            return checked(read_as, content, file)
    return None


def content_of(file: Path) -> dict | None:
    """Of a JSON file; None where there is none."""
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_bytes(), object_pairs_hook=once)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({forms.first_line(error)}); copy or download it again") from None
    return content if isinstance(content, dict) else None


def checked(reader: Callable[[dict, Path], Described], content: dict, file: Path) -> Described:
    try:
        found = reader(content, file)
    except (TypeError, AttributeError, ValueError, LookupError, ArithmeticError):
        raise UserError(f"{file}: no configuration of a CLIP; copy or download it again") from None
    every = {f"{part}.{name}": size for part, tower in found.towers.items() for name, size in tower.items()}
    for name, size in (every | {"dim": found.dim}).items():
        if type(size) is not int or size < 1:
            raise UserError(f"{file}: {name.replace('.', ' ')} of {size!r} is no size; copy or download it again")
    for part, tower in found.towers.items():
        if tower["width"] % tower["heads"]:
            raise UserError(f"{file}: {tower['heads']} heads do not divide the {part} width of {tower['width']}")
    return found


# transformers' own values, which a configuration may leave out.
OF_TEXT = {
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": WORDS,
    "max_position_embeddings": 77,
}
OF_VISION = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 32,
    "image_size": 224,
}
NAMES = {
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "hidden",
    "vocab_size": "vocabulary_size",
    "max_position_embeddings": "positions",
    "patch_size": "patch_size",
    "image_size": "image_size",
}
ARGMAX = 2  # the end of a text in early configurations, at which transformers takes the highest id


def of_transformers(content: dict, file: Path) -> Described:
    given = {}
    for part, default in (("text", OF_TEXT), ("vision", OF_VISION)):
        own = content.get(f"{part}_config_dict") or content.get(f"{part}_config") or {}
        given[part] = {"hidden_act": "quick_gelu", "layer_norm_eps": EPS, **default, **own}
        if given[part]["layer_norm_eps"] != EPS:
            raise UserError(f"{file}: layer_norm_eps={given[part]['layer_norm_eps']}: backbone=clip has {EPS}")
    text, vision = (
        {ours: given[part][theirs] for theirs, ours in NAMES.items() if theirs in given[part]} for part in given
    )
    eos = given["text"].get("eos_token_id", WORDS - 1)
    text["end_of_text"] = min(text["vocabulary_size"], WORDS) - 1 if eos == ARGMAX else eos
    acts = [given[part]["hidden_act"] for part in given]
    if acts[0] != acts[1] or acts[0] not in ACTIVATIONS:
        told = f"text hidden_act={acts[0]}, vision hidden_act={acts[1]}"
        raise UserError(f"{file}: {told}: backbone=clip has one for both, of {', '.join(ACTIVATIONS)}")
    return Described(file, {"text": text, "image": vision}, content.get("projection_dim", 512), acts[0])


HARMLESS = {"pool_type": ("tok", "argmax"), "pos_embed_type": ("learnable",), "custom_text": (True,)}


def of_open_clip(content: dict, file: Path) -> Described:
    model = dict(content["model_cfg"])
    vision = {"image_size": 224, "layers": 12, "width": 768, "head_width": HEAD_WIDTH, "patch_size": 16, "mlp_ratio": 4}
    text = {"context_length": 77, "vocab_size": WORDS, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4}
    known = {"vision_cfg": {*vision, "patch_dropout"}, "text_cfg": {*text}}
    known["model_cfg"] = {*known, "embed_dim", "quick_gelu", "init_logit_scale"}
    for part, given in (("model_cfg", model), *((part, model[part]) for part in ("vision_cfg", "text_cfg"))):
        for name in sorted(given.keys() - known[part]):
            if given[name] and given[name] not in HARMLESS.get(name, ()):
                raise UserError(
                    f"{file}: {part}.{name}={given[name]}: an option of open_clip's that backbone=clip lacks"
                )
    vision |= model["vision_cfg"]
    text |= model["text_cfg"]
    sides = vision["image_size"]
    if isinstance(sides, list):
        vision["image_size"] = sides[0] if sides[0] == sides[-1] else None
    towers = {
        "text": {
            **{
                ours: text[theirs]
                for theirs, ours in (("vocab_size", "vocabulary_size"), ("context_length", "positions"))
            },
            **{name: text[name] for name in ("width", "layers", "heads")},
            "hidden": int(text["width"] * text["mlp_ratio"]),
            "end_of_text": min(text["vocab_size"], WORDS) - 1,
        },
        "image": {
            **{name: vision[name] for name in ("width", "layers", "patch_size", "image_size")},
            "heads": vision["width"] // vision["head_width"],
            "hidden": int(vision["width"] * vision["mlp_ratio"]),
        },
    }
    return Described(file, towers, model["embed_dim"], "quick_gelu" if model.get("quick_gelu") else "gelu")


READERS: dict[str, Callable[[dict], Callable[[dict, Path], Described] | None]] = {
    CONFIG: lambda content: of_transformers if {"text_config", "text_config_dict"} & content.keys() else None,
    OPEN_CLIP_CONFIG: lambda content: of_open_clip if "model_cfg" in content else None,
}


def pixels(path: Path, image_size: int) -> dict[str, list[float]]:
    """`mean` and `std` as a file beside a checkpoint says them.  UserError where images are prepared in another way than
    by the shorter side resized to `image_size`, bicubic, and the middle."""
    if (found := normalised(path)) is not None:
        file, content, values = found
        check_ways(file, content, image_size)
        return values
    return {}


def check_ways(file: Path, content: Mapping[str, Any], image_size: int | None) -> None:
    """UserError where a file says that images are prepared in another way than by the shorter side resized to
    `image_size`, bicubic, and the middle.  content: what stands in it of them."""
    ways = {
        "resample": (3,),
        "interpolation": ("bicubic",),
        "resize_mode": ("shortest",),
        "do_center_crop": (True,),
        "do_resize": (True,),
        "do_rescale": (True,),
        "rescale_factor": (1 / 255, 0.003921568859368563),  # and its nearest in float32
        "rescale_offset": (False,),
        "do_normalize": (True,),
        "size": (image_size, {"shortest_edge": image_size}),
        "crop_size": (image_size, {"height": image_size, "width": image_size}),
    }
    if other := [key for key, taken in ways.items() if content.get(key) is not None and content[key] not in taken]:
        here = f"here the shorter side becomes {image_size}, bicubic, and the middle is taken"
        raise UserError(f"{file}: {other[0]}={content[other[0]]}: {here}; mend the file if it is another model's")


def resolution(content: Mapping[str, Any]) -> int | None:
    """The side of the square that a file says images are cut to; None where it says none."""
    sides = content.get("crop_size"), content.get("size")
    found = [side for each in sides for side in (each.values() if isinstance(each, dict) else (each,))]
    return next((side for side in found if type(side) is int), None)


PREPARED = (
    (PROCESSOR, OF_IMAGES, ("image_mean", "image_std")),
    (PREPROCESSOR, None, ("image_mean", "image_std")),
    (OPEN_CLIP_CONFIG, "preprocess_cfg", ("mean", "std")),
)
"""Files that say how images are prepared, in the order in which they are asked; under which key; and `mean` and `std`."""


def normalised(path: Path) -> tuple[Path, dict, dict[str, list[float]]] | None:
    """The file beside a checkpoint that says how its images are prepared, what stands in it, and its `mean` and `std`."""
    for name, within, keys in PREPARED:
        content = content_of(file := path.parent / name) or {}
        content = content if within is None else content.get(within)
        if isinstance(content, dict) and all(
            isinstance(content.get(key), list) and len(content[key]) == 3 for key in keys
        ):
            values = {ours: list(map(float, content[key])) for ours, key in zip(("mean", "std"), keys, strict=True)}
            return file, content, values
    return None
