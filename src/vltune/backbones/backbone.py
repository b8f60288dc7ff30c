"""What a backbone offers: to a task, what it makes of each modality and of both; to a method, sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vltune.batch import Batch
from vltune.errors import UserError
from vltune.layout import PatchGrid
from vltune.nn.embeddings import where_needed

LAST_LAYERS = ("class_token", "all")
JOINT = ("encode_text", "encode_image", "fuse")
"""The parts of a backbone for texts with images, of which `forward` follows."""
TWO_TOWERS = ("embed_text", "embed_image", "compare", "in_room", "text_room", "of_tower")
"""Those of one whose texts and images meet in one space alone."""
DENOISING = ("embed_prompt", "encode_picture", "denoise", "errors", "noise", "check_sampler", "paint")
"""Those of one that makes images of noise and texts."""


@dataclass
class Encoded:
    """What follows from one modality alone, so that it is computed once for all pairs that it is part of.

    tokens: (B, N, width).  mask: (B, N) bool, True = token, or None where nothing is masked.  attended: (B, N, width), what
    a two-stream backbone's first fusion layer makes of the tokens before it sees the other stream.  grid: of an image, how
    its patches lie among the tokens, where that differs from batch to batch.
    """

    tokens: Tensor
    mask: Tensor | None = None
    attended: Tensor | None = None
    grid: PatchGrid | None = None

    def __getitem__(self, rows) -> Encoded:
        """The examples that an index, a slice or a tensor of row numbers chooses."""
        parts = (self.tokens, self.mask, self.attended, self.grid)
        return Encoded(*(None if part is None else part[rows] for part in parts))

    def __len__(self) -> int:
        return len(self.tokens)

    def repeat(self, times: int) -> Encoded:
        """Each example `times` times in a row."""
        return self[torch.arange(len(self), device=self.tokens.device).repeat_interleave(times)]


@dataclass
class Features:
    """pooled: (B, pooled_width), from the class token.  text: (B, T, width) and image: (B, 1 + patches, width), the last
    layer's tokens, or None where only the class token was computed there."""

    pooled: Tensor
    text: Tensor | None = None
    image: Tensor | None = None


class Backbone(nn.Module):
    """A pretrained model of images, texts, or both.

    It must have `width`, of a token, and `pooled_width`, of what a head reads; `latent_shape`, (C, h, w), where it makes
    images; and sites (`vltune.sites`), which say where they lie: in `fusion`, as a new one says, or in the tower of one
    modality (`sites.place`).  A part that a backbone lacks it leaves out: two towers alone have no `fuse`, an image model
    has no `encode_text`, and defines `forward` itself.  A run whose task `needs` that part is refused in one line before
    any data is read.

    The rest is no code.  Its configuration says `transform`, `tokenizer` and `weights`, `protocol` (the sizes of the
    example that costs are counted on), `place` (where a method acts unless `method.sites_in` says another place) and
    `sizes` (of methods); a key map in `vltune.weights.maps` says what its tensors are called in files.

    last_layer: of LAST_LAYERS, whether the last layer is computed for what a task's head reads alone, or for every token,
    as costs are published.
    """

    width: int
    pooled_width: int
    latent_shape: tuple[int, int, int]
    last_layer: str = "all"
    parts: ClassVar[tuple[str, ...]] = (*JOINT, "forward", "text_features", "image_features", *TWO_TOWERS, *DENOISING)

    @classmethod
    def offers(cls, part: str) -> bool:
        """Whether it has a part: one of `parts`."""
        if getattr(cls, part) is not getattr(Backbone, part):
            return True
        return part == "forward" and all(map(cls.offers, JOINT))

    def arrange(self, batch: Batch) -> Batch:
        """The same with all that depends on sizes decided while it lies in the host's memory, so that no forward pass asks
        a device for a number or has a shape that follows from numbers.  A batch that was not arranged is, where it is
        read."""
        masks = {key.removesuffix("_mask"): mask for key, mask in batch.items() if key.endswith("_mask")}
        return batch | {f"{text}_attends": where_needed(mask) for text, mask in masks.items()}

    @staticmethod
    def attends(batch: Batch, text: str) -> Tensor | None:
        """(B, T) bool, True = token, of texts; None where nothing is masked."""
        key = f"{text}_attends"
        return batch[key] if key in batch else where_needed(batch[f"{text}_mask"])

    def encode_text(self, batch: Batch, text: str = "text") -> Encoded:
        """What follows from texts alone.  batch: `text`_ids (B, T) int, `text`_mask (B, T) bool, True = token; or
        `text`_features (B, T, width) in the ids' place, where there are towers."""
        raise self.lack("encode_text")

    def encode_image(self, batch: Batch, image: str = "image", token_type: int = 1) -> Encoded:
        """What follows from images alone.  batch: `image` (B, 3, H, W), zero-padded at the right and bottom, and
        `image`_size (B, 2), height and width in pixels; or `image`_features (B, N, width) in the pixels' place, where there
        are towers.  token_type: 1, or 2 for the second image of an example."""
        raise self.lack("encode_image")

    def fuse(self, text: Encoded, image: Encoded) -> Features:
        """What text and image are together, example by example."""
        raise self.lack("fuse")

    def forward(self, batch: Batch) -> Features:
        """A batch of texts with one image each, as `encode_text` and `encode_image` take them."""
        return self.fuse(self.encode_text(batch), self.encode_image(batch))

    def towers(self) -> dict[str, list[nn.Module]]:
        """By `text` and `image`, all that `text_features` and `image_features` are computed by; empty without towers whose
        output can be stored."""
        return {}

    def text_features(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T) and (B, T) -> (B, T, width): what the text tower gives, which `encode_text` starts from."""
        raise self.lack("text_features")

    def image_features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, width): the same of the image tower."""
        raise self.lack("image_features")

    def embed_text(self, ids: Tensor, image: Tensor | None = None) -> Tensor:
        """(C, T) int64 -> (C, dim), or (B, C, dim) where a method makes of texts what follows from images, (B, dim)."""
        raise self.lack("embed_text")

    def embed_image(self, batch: Batch, image: str = "image") -> Tensor:
        """(B, dim): batch as `encode_image` takes it."""
        raise self.lack("embed_image")

    def text_room(self, image: Tensor) -> int:
        """Tokens of a text at most, less those that a method adds.  image: (1, dim), for one that makes them of images."""
        raise self.lack("text_room")

    def in_room(self, ids: Tensor, image: Tensor) -> Tensor:
        """(C, T) -> (C, T'): texts in `text_room`, a longer one cut as a tokenizer cuts, so that it has its end.  image:
        (B, dim)."""
        raise self.lack("in_room")

    def compare(self, image: Tensor, text: Tensor) -> Tensor:
        """(B, dim) and (C, dim), or (B, C, dim) -> (B, C) logits"""
        raise self.lack("compare")

    def embed_words(self, ids: Tensor) -> Tensor:
        """(T,) -> (T, width): what tokens are to the text tower, before their positions."""
        raise self.lack("embed_words")

    def text_is_fixed(self, trains: Callable[[nn.Module], bool]) -> bool:
        """Whether `embed_text`, or `embed_prompt`, gives the same throughout a run.  trains: whether what a module computes
        changes in it."""
        return False

    def embed_prompt(self, batch: Batch, text: str = "text") -> Tensor:
        """(B, T, width) What texts are to the denoising network.  batch: `text`_ids (B, T) int64, every text padded to the
        length that the backbone was trained with, as its tokenizer pads; or `text`_features in their place."""
        raise self.lack("embed_prompt")

    def encode_picture(self, batch: Batch, image: str = "image") -> Tensor:
        """(B, C, h, w) Latents of images.  batch: `image` (B, 3, H, W) in [-1, 1], or `image`_features in its place."""
        raise self.lack("encode_picture")

    def denoise(self, latents: Tensor, steps: Tensor, text: Tensor) -> Tensor:
        """(B, C, h, w) What the network predicts of noised latents (B, C, h, w) at steps (B,) with texts (B, T, width)."""
        raise self.lack("denoise")

    def errors(self, latents: Tensor, text: Tensor) -> Tensor:
        """(B, C, h, w) and (B, T, width) -> (B,): the weighted squared error of `denoise`, of each latents at a step and
        with noise drawn at random, meaned over their elements."""
        raise self.lack("errors")

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """(B, C, h, w) What `paint` begins with: of each seed its own, whatever the others are, the same on all devices."""
        raise self.lack("noise")

    def check_sampler(self, steps: int) -> None:
        """UserError where `paint` cannot take so many steps."""
        raise self.lack("check_sampler")

    def paint(self, text: Tensor, empty: Tensor, noise: Tensor, steps: int = 25, guidance: float = 2.0) -> Tensor:
        """(B, 3, H, W) in [-1, 1], without chance.

        text: (B, T, width); empty: (1, T, width) of the empty text, from which guidance leads away; noise: (B, C, h, w)."""
        raise self.lack("paint")

    def called_in_parts(self) -> list[nn.Module]:
        """Blocks of which something is computed elsewhere than in their own forward pass."""
        return []

    def own_parameters(self) -> list[nn.Parameter]:
        """What a method trains that tunes the whole backbone."""
        return [*self.parameters()]

    def of_tower(self) -> dict[str, list[nn.Parameter]]:
        """Of a backbone of two towers, all that `embed_image` follows from, by `image`, and by `text` all the rest."""
        raise self.lack("of_tower")

    def start_class_token(self, cls_id: int) -> None:
        """Once pretrained weights are in: starts what they do not hold.  cls_id: the vocabulary's first token of a text."""

    def shared_parameters(self) -> list[nn.Parameter]:
        """What is trained with every method, unless `method.always_trained` leaves it out."""
        return []

    def fusion_parameters(self) -> list[nn.Parameter]:
        """What is trained at `engine.fusion_lr_multiplier` times the rate, methods' parameters there among it."""
        return []

    @classmethod
    def lack(cls, part: str, needed_by: str = "this") -> UserError:
        return UserError(f"{cls.__name__} has no {part}, which {needed_by} needs; choose another backbone or task")


def check_last_layer(value: str) -> str:
    """`backbone.last_layer`: `class_token` computes the last layer for what a task's head reads alone, `all` for all."""
    if value not in LAST_LAYERS:
        raise UserError(f"backbone.last_layer={value}: must be class_token or all")
    return value
