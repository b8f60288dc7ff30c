"""METER (Dou et al. 2022, arXiv 2111.02387): a text and an image tower, joined by co-attention.

Each stream's fusion layers attend to themselves and to the other stream.  As in the code released with APT, a learned class
token stands in the place of the text's first token; it enters after the text tower and its projection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vltune.backbones.backbone import Backbone, Encoded, Features, check_last_layer
from vltune.backbones.clip import ClipTower
from vltune.backbones.roberta import RobertaTower
from vltune.backbones.swin import SwinTower
from vltune.batch import Batch
from vltune.errors import UserError
from vltune.layout import PatchLayout
from vltune.nn.activations import ACTIVATIONS
from vltune.nn.blocks import FusionBlock
from vltune.nn.heads import Pooler, bert_init
from vltune.sites import TokenSite, place

IMAGE_TOWERS = {"clip": ClipTower, "swin": SwinTower}


class Meter(Backbone):
    """
    text_tower: sizes of a `RobertaTower`.  image_towers: sizes of the image towers to choose from, each with its `kind`,
        clip or swin; image_tower: the one that is built.
    last_layer: `class_token` computes the last layer for the first token of each stream alone, all that a task's head
        reads (for every token of an image stream that is pooled by averaging); `all` for every token.
    """

    def __init__(
        self,
        text_tower: dict,
        image_tower: str,
        image_towers: dict[str, dict],
        width: int = 768,
        layers: int = 6,
        heads: int = 12,
        hidden: int = 3072,
        token_types: int = 2,
        activation: str = "gelu",
        dropout: float = 0.1,
        last_layer: str = "class_token",
    ):
        super().__init__()
        if image_tower not in image_towers:
            raise UserError(f"backbone.image_tower={image_tower}: must be one of {', '.join(image_towers)}")
        self.last_layer, self.width, self.pooled_width = check_last_layer(last_layer), width, 2 * width
        self.text = RobertaTower(**text_tower)
        self.text.apply(bert_init)
        sizes = dict(image_towers[image_tower])
        self.image = IMAGE_TOWERS[sizes.pop("kind")](**sizes)
        self.text_projection = nn.Linear(self.text.width, width)
        self.image_projection = nn.Linear(self.image.width, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.token_type = nn.Embedding(token_types, width)
        self.at_text = TokenSite("sequence", width)
        self.at_image = TokenSite("sequence", width)
        self.text_layers, self.image_layers = (
            nn.ModuleList(
                FusionBlock(width, heads, hidden, ACTIVATIONS[activation](), dropout, eps=1e-12) for _ in range(layers)
            )
            for _ in range(2)
        )
        self.text_pooler, self.image_pooler = Pooler(width), Pooler(width)
        for part in (self.text_projection, self.image_projection, self.token_type, *self.fusion()):
            part.apply(bert_init)
        layout = PatchLayout(self.image.grid)
        for text_layer, image_layer in zip(self.text_layers, self.image_layers, strict=True):
            text_layer.lay(None, layout)
            image_layer.lay(layout, None)
        place(self.text, "text")
        place(self.image, "image")

    def towers(self) -> dict[str, list[nn.Module]]:
        """What `text_features` and `image_features` are computed by, and nothing else is."""
        return {"text": [self.text, self.text_projection], "image": [self.image, self.image_projection]}

    def called_in_parts(self) -> list[nn.Module]:
        return [self.text_layers[0], self.image_layers[0]]

    def fusion(self) -> list[nn.Module]:
        return [self.text_layers, self.image_layers, self.text_pooler, self.image_pooler]

    def shared_parameters(self) -> list[nn.Parameter]:
        """What the paper trains with every method: poolers, token types and class token."""
        poolers = [*self.text_pooler.parameters(), *self.image_pooler.parameters()]
        return [*poolers, *self.token_type.parameters(), self.class_token]

    def fusion_parameters(self) -> list[nn.Parameter]:
        """What is trained at `engine.fusion_lr_multiplier` times the rate, methods' parameters there among it."""
        parts = [self.text_projection, self.image_projection, self.at_text, self.at_image, *self.fusion()]
        return [parameter for part in parts for parameter in part.parameters()]

    @torch.no_grad()
    def start_class_token(self, cls_id: int) -> None:
        """Sets the class token to RoBERTa's embedding of <s>, as released; projected where the widths differ."""
        training = self.text.training
        self.text.eval()
        start = self.text.embedding(torch.full((1, 1), cls_id, device=self.class_token.device))
        self.class_token.copy_(start if self.text.width == self.width else self.text_projection(start))
        self.text.train(training)

    def train(self, mode: bool = True) -> Meter:
        """A tower in which nothing is trained runs as in inference: its output is the same every time."""
        super().train(mode)
        for tower in (self.text, self.image):
            if not any(parameter.requires_grad for parameter in tower.parameters()):
                tower.eval()
        return self

    def text_features(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """What a text's tokens are to the fusion layers: (B, T), (B, T) -> (B, T, width).

        In inference, a frozen tower's included, lengths are made to be multiples of 16, always with a mask: sums over keys
        and a product's split over threads depend on them.  So texts beside a text hardly change its last digits."""
        multiple = 1 if self.text.training else 16
        return self.text_projection(self.text(ids, mask, multiple))[:, : ids.shape[1]]

    def image_features(self, image: Tensor) -> Tensor:
        """The same of images: (B, 3, H, W) -> (B, N, width)"""
        return self.image_projection(self.image(image))

    def encode_text(self, batch: Batch, text: str = "text") -> Encoded:
        """batch: `text`_ids (B, T) int and `text`_mask (B, T) bool; `text`_features (B, T, width) take the ids' place."""
        mask = self.attends(batch, text)
        embedded = batch.get(f"{text}_features")
        if embedded is None:
            embedded = self.text_features(batch[f"{text}_ids"], mask)
        first = self.class_token.expand(len(embedded), -1, -1)
        x = torch.cat([first, embedded[:, 1:]], dim=1) + self.token_type.weight[0]
        return self.enter(self.at_text, self.text_layers[0], x, mask)

    def encode_image(self, batch: Batch, image: str = "image", token_type: int = 1) -> Encoded:
        """batch: `image` (B, 3, H, W), or `image`_features (B, N, width).  token_type: 1, or 2 for a second image."""
        embedded = batch.get(f"{image}_features")
        if embedded is None:
            embedded = self.image_features(batch[image])
        return self.enter(self.at_image, self.image_layers[0], embedded + self.token_type.weight[token_type], None)

    def enter(self, site: TokenSite, layer: FusionBlock, x: Tensor, mask: Tensor | None) -> Encoded:
        x, mask = site(x, mask)
        return Encoded(x, mask, layer.alone(x, mask))

    def fuse(self, text: Encoded, image: Encoded) -> Features:
        class_token_only = self.last_layer == "class_token"
        image_token_only = class_token_only and self.image.pools_class_token
        x, y, own_x, own_y = text.tokens, image.tokens, text.attended, image.attended
        last = len(self.text_layers) - 1
        for i, (text_layer, image_layer) in enumerate(zip(self.text_layers, self.image_layers, strict=True)):
            x, y = (
                text_layer(x, text.mask, y, image.mask, own_x, class_token_only and i == last),
                image_layer(y, image.mask, x, text.mask, own_y, image_token_only and i == last),
            )
            own_x = own_y = None
        pooled_image = y if self.image.pools_class_token else y.mean(1, keepdim=True)
        pooled = torch.cat([self.text_pooler(x), self.image_pooler(pooled_image)], dim=1)
        return Features(pooled) if class_token_only else Features(pooled, x, y)
