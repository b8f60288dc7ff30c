"""The sizes that a backbone is known by, read from the shapes of its tensors under our names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Size, Tensor

LAYERS = {
    "layers": r"blocks\.\d+\.",
    "fusion layers": r"text_layers\.\d+\.",
    "text layers": r"text\.blocks\.\d+\.",
    "image layers": r"image\.(body\.layers\.\d+\.)?blocks\.\d+\.",
}


def rows(shape: Size) -> int:
    return shape[0]


def second(shape: Size) -> int:
    return shape[1]


def columns(shape: Size) -> int:
    return shape[-1]


def side(shape: Size) -> int:
    """A patch's pixels a side, from the weight of its map: (width, 3 p^2) or (width, 3, p, p)"""
    return round((shape[1:].numel() / 3) ** 0.5)


def grid(shape: Size) -> int:
    """Patches a side, from positions: (g, g, width) or (g^2, width)"""
    return round(shape[:-1].numel() ** 0.5)


def window(shape: Size) -> int:
    """Tokens a side of a window, from Swin's relative positions: ((2 w - 1)^2, heads)"""
    return (round(shape[0] ** 0.5) + 1) // 2


OF_TEXT = "text.embeddings"  # transformers' text encoder's
# Name -> the keys that tell it, each with how; the first one that is there tells.
WIDTHS: dict[str, dict[str, Callable[[Size], int]]] = {
    "vocabulary": dict.fromkeys(
        (
            "text.word.weight",
            "text.embedding.word.weight",
            "embedding.word.weight",
            f"{OF_TEXT}.token_embedding.weight",
        ),
        rows,
    ),
    "patch size": dict.fromkeys(("image.patch.weight", "patch.weight", "image.body.patch_embed.proj.weight"), side),
    "text width": dict.fromkeys(("text_projection.weight", f"{OF_TEXT}.token_embedding.weight"), columns),
    "latent channels": {"vae.post_quant_conv.weight": rows},
    "UNet width": {"unet.conv_in.weight": rows},
    "UNet channels": {"unet.conv_in.weight": second},
    "image width": {"image_projection.weight": columns},
    "hidden width": {
        "blocks.0.feed_forward.up.weight": rows,
        "blocks.0.feed_forward.feed_forward.up.weight": rows,
        "text_layers.0.feed_forward.feed_forward.up.weight": rows,
        "text.blocks.0.feed_forward.up.weight": rows,
    },
    "text positions": dict.fromkeys(
        (
            *("text.position.weight", "text.position", "text.embedding.position.weight"),
            *("embedding.position.weight", f"{OF_TEXT}.position_embedding.weight"),
        ),
        rows,
    ),
    "token types": {"token_type.weight": rows},
    "image grid": {"image.position": grid, "position": grid},
    "image window": {"image.body.layers.0.blocks.0.attn.relative_position_bias_table": window},
}
WIDTH = {"token_type.weight": columns, "embedding.word.weight": columns, "patch.weight": rows}


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """By name, the most telling first; only those that the tensors' names have.  An image size, a patch size: pixels."""

    def told(keys: dict[str, Callable[[Size], int]]) -> int | None:
        shapes = {key: tensors[key].shape for key in keys if key in tensors and tensors[key].dim() > 1}
        return next((keys[key](shape) for key, shape in shapes.items()), None)

    layers = {
        name: len({found[0] for key in tensors if (found := re.match(pattern, key))})
        for name, pattern in LAYERS.items()
    }
    found = {"width": told(WIDTH), **layers} | {name: told(keys) for name, keys in WIDTHS.items()}
    if (patches := found.pop("image grid")) and found["patch size"]:
        found["image size"] = patches * found["patch size"]
    return {name: size for name, size in found.items() if size}


def differences(theirs: dict[str, int], ours: dict[str, int], model: str) -> list[str]:
    """In words, which sizes of a file are not those of a model, in the order of the tables above; an image's size, to which
    positions are interpolated, is none of them.  model: what the model is called."""
    return [
        f"{name} {theirs.get(name, 'none')} in the file, {ours.get(name, 'none')} in {model}"
        for name in ("width", *LAYERS, *WIDTHS)
        if theirs.get(name) != ours.get(name)
    ]
