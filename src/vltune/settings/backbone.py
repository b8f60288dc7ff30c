"""`backbone`: what a backbone's configuration holds beside the arguments of its constructor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval
from typing_extensions import NotRequired, TypedDict

from vltune.settings.kinds import (
    OPEN,
    Layers,
    Name,
    NotDecisive,
    NotItself,
    Pixels,
    Positive,
    Share,
    Size,
    Spec,
    TextLength,
    Words,
)

PICKS = {"image_towers": "image_tower", "models": "model", "pipelines": "model"}
"""Of several, the setting that chooses."""


class TowerSettings(TypedDict):
    """The sizes of one tower of a two-stream backbone."""

    kind: NotRequired[str]
    """Which tower it is: clip or swin."""
    model: NotRequired[str]
    """timm's name of a Swin transformer."""
    layers: NotRequired[Layers]
    """How many blocks it has."""
    first_position: NotRequired[Annotated[int, Interval(ge=0)]]
    """The position of a text's first token: the id of RoBERTa's padding, and one more."""
    activation: NotRequired[str]
    """What lies between the two maps of its feed-forward layers."""
    dropout: NotRequired[Share]
    """Share of values that training sets to zero."""
    eps: NotRequired[Positive]
    """Added to the variance in its norms."""
    width: NotRequired[Size]
    """Numbers a token."""
    heads: NotRequired[Size]
    """Of attention; they divide the width."""
    hidden: NotRequired[Size]
    """Numbers a token between the two maps of a feed-forward layer."""
    vocabulary_size: NotRequired[Size]
    """Rows of the table of word embeddings."""
    positions: NotRequired[Size]
    """Rows of the table of positions."""
    segments: NotRequired[Size]
    """Rows of the table of token types."""
    patch_size: NotRequired[Size]
    """Pixels of a patch's side."""
    image_size: NotRequired[Size]
    """Pixels of an image's side."""
    end_of_text: NotRequired[Annotated[int, Interval(ge=0)]]
    """The token that ends a text, at which the text tower is read."""


class ModelSettings(TypedDict):
    """The sizes of a backbone of two towers."""

    text: TowerSettings
    """Of the text tower."""
    image: TowerSettings
    """Of the image tower."""
    dim: Size
    """Numbers of what both towers give."""


class PipelineSettings(TypedDict):
    """What a text-to-image model is built from: the configurations of its parts, as diffusers has them."""

    unet: Mapping[str, Any]
    """Of the denoising network."""
    text: Mapping[str, Any]
    """Of the text encoder."""
    vae: Mapping[str, Any]
    """Of the autoencoder; or `fold`, pixels of the side of squares that become channels instead."""
    scheduler: Mapping[str, Any]
    """Of the noise, and of what the network predicts."""
    image_size: NotRequired[Size]
    """Pixels of a picture's side."""
    padding: NotRequired[str]
    """The token that fills a text."""


class TowerWeights(TypedDict):
    text: NotRequired[Path | None]
    """A transformers folder of the text tower, or null."""
    image: NotRequired[Path | None]
    """A transformers folder of the image tower, or its authors' own file, or null."""


class PublishedWeights(TypedDict):
    weights: Path
    """Where they are looked for."""
    at: str
    """Where they are published."""


class ProtocolSettings(TypedDict):
    text_len: Size
    """Tokens of the text that costs are counted on."""
    image: tuple[Pixels, Pixels]
    """Height and width in pixels of the image that costs are counted on."""


class BackboneSettings(TypedDict):
    __pydantic_config__ = OPEN

    name: Name
    """What records and tables call it."""
    image_size: NotRequired[Size]
    """Pixels of the side of the square image that its position embeddings were trained for."""
    patch_size: NotRequired[Size]
    """Pixels of a patch's side."""
    vocabulary_size: Size
    """Rows of the table of word embeddings."""
    max_text_len: TextLength
    """Tokens of a text at most, the first and the last among them; longer ones are cut off."""
    published: NotRequired[Annotated[Mapping[str, PublishedWeights], NotItself()]]
    """Of each model that can be chosen its weights."""
    weights: Annotated[Path | None, NotItself()]
    """The pretrained backbone, or null for one that starts at random."""
    weights_from: NotRequired[Annotated[str | None, NotDecisive()]]
    """Where those weights are published, shown where they are missing."""
    tower_weights: NotRequired[Annotated[TowerWeights | None, NotItself()]]
    """With weights=null: the pretrained towers, below a fusion that starts at random."""
    tokenizer: Annotated[Spec, NotItself()]
    """What makes tokens of a text."""
    transform: Spec
    """What makes a tensor of an image."""
    pixels: NotRequired[Annotated[Mapping[str, Any], NotItself()]]
    """The normalisation of each image tower that can be chosen."""
    sizes: NotRequired[Annotated[Mapping[str, Size], NotItself()]]
    """The published size of each method on this backbone, which the methods' settings refer to."""
    lora_roles: NotRequired[Annotated[Words, NotItself()]]
    """The sites that LoRA acts at unless method.roles says others, where its usual ones are not what users know."""
    lora_dropout: NotRequired[Annotated[float, NotItself()]]
    """Likewise of what LoRA's first map reads."""
    lora_init_std: NotRequired[Annotated[float, NotItself()]]
    """Likewise the standard deviation that its first map starts with."""
    place: NotRequired[Annotated[str, NotItself()]]
    """Where methods act unless method.sites_in says another place."""
    protocol: ProtocolSettings
    """What costs are counted on."""
    text_tower: NotRequired[TowerSettings]
    """The sizes of the text tower."""
    image_towers: NotRequired[Mapping[str, TowerSettings]]
    """The sizes of the image towers that `image_tower` chooses from."""
    models: NotRequired[Mapping[str, ModelSettings]]
    """The sizes that `model` chooses from."""
    pipelines: NotRequired[Mapping[str, PipelineSettings]]
    """The text-to-image models that `model` chooses from."""
