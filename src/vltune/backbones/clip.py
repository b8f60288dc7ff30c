"""CLIP (Radford et al. 2021, arXiv 2103.00020): a text and an image tower whose outputs lie in one space.

Both are pre-norm transformers.  A text's tokens see those before them alone, so what follows the end of a text changes
nothing, and texts are cut behind the longest one's end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vltune.backbones.backbone import Backbone, check_last_layer
from vltune.batch import Batch
from vltune.errors import UserError
from vltune.layout import PatchGrid, PatchLayout, Summary
from vltune.nn.activations import ACTIVATIONS
from vltune.nn.blocks import PreNormBlock, one
from vltune.nn.embeddings import unfold
from vltune.nn.whole import in_float32
from vltune.sites import OutputSite, TokenSite, lay, place, sites

SHORTEST = 3  # tokens of a text: its start, a word and its end
HIGHEST_LOGIT_SCALE = 4.60546875  # log 100, up to which CLIP was trained, as half precision holds it
EPS = 1e-5


def blocks(width: int, layers: int, heads: int, hidden: int, activation: str) -> nn.ModuleList:
    return nn.ModuleList(
        PreNormBlock(width, heads, hidden, ACTIVATIONS[activation](), dropout=0.0, eps=EPS) for _ in range(layers)
    )


class ClipTower(nn.Module):
    """(B, 3, image_size, image_size) -> (B, 1 + patches, width), the class token first, normalised; or with
    class_token_only (B, 1, width).

    layers: one fewer than CLIP has, where the tower leaves out the last block as METER's does.
    """

    pools_class_token = True

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        patch_size: int,
        image_size: int,
        activation: str = "quick_gelu",
    ):
        super().__init__()
        self.width, self.patch_size, self.activation = width, patch_size, activation
        self.patch = nn.Linear(3 * patch_size**2, width, bias=False)
        self.class_token = nn.Parameter(width**-0.5 * torch.randn(width))
        self.class_position = nn.Parameter(width**-0.5 * torch.randn(1, width))
        self.position = nn.Parameter(width**-0.5 * torch.randn((image_size // patch_size) ** 2, width))
        self.norm_in = nn.LayerNorm(width, eps=EPS)
        self.at_sequence = TokenSite("sequence", width)
        self.at_sequence.behind = self.norm_in.forward
        self.blocks = blocks(width, layers, heads, hidden, activation)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.grid = PatchGrid(image_size // patch_size, image_size // patch_size, start=1)
        lay(self, PatchLayout(self.grid))

    def forward(self, image: Tensor, class_token_only: bool = False) -> Tensor:
        first = (self.class_token + self.class_position).expand(len(image), 1, -1)
        x = self.norm_in(torch.cat([first, self.patch(unfold(image, self.patch_size)) + self.position], dim=1))
        tokens = 1 if class_token_only else x.shape[1]
        x, _ = self.at_sequence(x, None)
        for block in self.blocks[:-1]:
            x = block(x, None)
        x = self.blocks[-1](x, None, only=0 if class_token_only else None)
        return self.norm(x[:, :tokens])


class ClipTextTower(nn.Module):
    """(C, T) int64 -> (C, 1, width): the first end-of-text token, normalised.  Each text must have one.

    positions: tokens of a text at most, a method's among them.  end_of_text: the id of that token.  image_width: of the
    embedding that a method's tokens may follow from.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        hidden: int,
        vocabulary_size: int,
        positions: int,
        end_of_text: int,
        activation: str = "quick_gelu",
        image_width: int | None = None,
    ):
        super().__init__()
        self.width, self.end_of_text = width, end_of_text
        self.word = nn.Embedding(vocabulary_size, width)
        self.position = nn.Parameter(0.01 * torch.randn(positions, width))
        nn.init.normal_(self.word.weight, std=0.02)
        self.at_sequence = TokenSite("sequence", width, at=1, image_width=image_width)
        self.blocks = blocks(width, layers, heads, hidden, activation)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.summary = Summary()
        for site in sites(self):
            site.summary = self.summary

    def forward(self, ids: Tensor, last_layer: str = "class_token") -> Tensor:
        x, _ = self.at_sequence(self.word(ids), None if self.at_sequence.delta is None else self.said(ids))
        extra, length = x.shape[1] - ids.shape[1], x.shape[1]
        if length > len(self.position):
            prompts = f", {extra} of them prompts," if extra else ""
            raise UserError(
                f"a text of {length} tokens{prompts} exceeds the {len(self.position)} positions of the backbone: "
                "shorten the template or the names (backbone.max_text_len), or take fewer prompts"
            )
        end = self.summary.place = (ids == self.end_of_text).int().argmax(1) + extra
        mask = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()[None]
        x = x + self.position[:length]
        for block in self.blocks[:-1]:
            x = block(x, mask)
        x = self.blocks[-1](x, mask, only=end if last_layer == "class_token" else None)
        return self.norm(x if x.shape[1] == 1 else one(x, end))

    def said(self, ids: Tensor) -> Tensor:
        """(C, T) bool: the tokens up to each text's first end, behind which anything may stand."""
        ends = (ids == self.end_of_text).int()
        return ends.cumsum(1) == ends


class Clip(Backbone):
    """models: sizes to choose from by `model`, each of {text: of a `ClipTextTower`, image: of a `ClipTower`, dim: of the
        space of both}.
    text_chunk: texts that are computed at a time; where there are more, training keeps no activation of theirs and
        computes each chunk again for its gradient.  The result is the same, and the memory that of one chunk.
    last_layer: `class_token` computes the last layers for the class token and the end-of-text token alone, which the
        towers give; `all` for every token.
    """

    def __init__(
        self,
        models: dict[str, dict],
        model: str,
        activation: str = "quick_gelu",
        text_chunk: int = 128,
        last_layer: str = "class_token",
    ):
        super().__init__()
        if model not in models:
            raise UserError(f"backbone.model={model}: must be one of {', '.join(models)}")
        if activation not in ACTIVATIONS:
            raise UserError(f"backbone.activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        sizes, self.text_chunk, self.last_layer = models[model], text_chunk, check_last_layer(last_layer)
        self.width = self.pooled_width = dim = sizes["dim"]
        self.text = ClipTextTower(**sizes["text"], activation=activation, image_width=dim)
        self.image = ClipTower(**sizes["image"], activation=activation)
        self.text_projection, self.image_projection = (
            nn.Linear(tower.width, dim, bias=False) for tower in (self.text, self.image)
        )
        for projection in (self.text_projection, self.image_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.at_text, self.at_image = OutputSite("embedding", dim), OutputSite("embedding", dim)
        for part in (self.text, self.at_text):
            place(part, "text")
        for part in (self.image, self.at_image):
            place(part, "image")

    def towers(self) -> dict[str, list[nn.Module]]:
        """What `text_features` and `image_features` are computed by, and nothing else is."""
        return {"text": [self.text, self.text_projection], "image": [self.image, self.image_projection]}

    def text_features(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """(C, T) -> (C, 1, dim).  mask: is not needed, as no token sees those behind it."""
        return self.text_projection(self.text(ids, self.last_layer))

    def image_features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1, dim)"""
        return self.image_projection(self.image(image, self.last_layer == "class_token")[:, :1])

    def embed_text(self, ids: Tensor, image: Tensor | None = None) -> Tensor:
        """(C, T) int64 -> (C, dim), not normalised; or where a method's tokens follow from the image, (B, C, dim).

        image: (B, dim), what `embed_image` gave of the images that the texts are compared with."""
        if not self.text.at_sequence.follows_image:
            return self.in_chunks(ids, None)
        together = max(1, self.text_chunk // len(ids))  # images
        return torch.cat([self.of_images(ids, images) for images in image.split(together)])

    def of_images(self, ids: Tensor, images: Tensor) -> Tensor:
        """(C, T) and (B, dim) -> (B, C, dim): each image's own texts"""
        if len(images) == 1:
            return self.in_chunks(ids, images)[None]
        texts = self.again(*self.pairs(ids, images))
        return texts.unflatten(0, (len(images), -1))

    def pairs(self, ids: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B * C, T) and (B * C, dim)"""
        return ids.repeat(len(images), 1), images.repeat_interleave(len(ids), 0)

    def in_chunks(self, ids: Tensor, image: Tensor | None) -> Tensor:
        chunks = ids.split(self.text_chunk)
        if not torch.is_grad_enabled() or (len(chunks) == 1 and image is None):
            return torch.cat([self.embed_chunk(chunk, image) for chunk in chunks])
        return torch.cat([self.again(chunk, image) for chunk in chunks])

    def again(self, ids: Tensor, image: Tensor | None) -> Tensor:
        """`embed_chunk`, computed again for its gradient; compiled code keeps it: a chunk tells its sites of itself."""
        if torch.compiler.is_compiling():
            return self.embed_chunk(ids, image)
        return checkpoint(self.embed_chunk, ids, image, use_reentrant=False)

    def embed_chunk(self, ids: Tensor, image: Tensor | None) -> Tensor:
        self.text.at_sequence.image = image  # here, so that it is the same when the chunk is computed again
        features = self.text_features(ids, None)
        return self.at_text(features, features)[:, 0]

    def text_room(self, image: Tensor) -> int:
        tower = self.text
        tower.at_sequence.image = image
        with torch.no_grad():
            extra = tower.at_sequence(tower.word.weight[None, :1], None)[0].shape[1] - 1
        return len(tower.position) - extra

    def in_room(self, ids: Tensor, image: Tensor) -> Tensor:
        room, end = self.text_room(image[:1]), self.text.end_of_text
        if not SHORTEST <= room < ids.shape[1]:  # where there is room for no text the tower says so
            return ids
        kept, last = ids[:, :room], ids[:, room - 1 : room]
        last = torch.where((kept == end).any(1, keepdim=True), last, end)
        return torch.cat([kept[:, :-1], last], dim=1)

    def embed_image(self, batch: Batch, image: str = "image") -> Tensor:
        """(B, dim), not normalised.  batch: `image` (B, 3, H, W), or `image`_features (B, 1, dim)."""
        features = batch.get(f"{image}_features")
        if features is None:
            features = self.image_features(batch[image])
        return self.at_image(features, features)[:, 0]

    def embed_words(self, ids: Tensor) -> Tensor:
        return self.text.word(ids).detach()

    def text_is_fixed(self, trains: Callable[[nn.Module], bool]) -> bool:
        return not any(map(trains, (self.text, self.text_projection, self.at_text)))

    def of_tower(self) -> dict[str, list[nn.Parameter]]:
        of_image = [p for part in (self.image, self.image_projection, self.at_image) for p in part.parameters()]
        there = {id(parameter) for parameter in of_image}
        return {"image": of_image, "text": [p for p in self.parameters() if id(p) not in there]}

    def compare(self, image: Tensor, text: Tensor) -> Tensor:
        """(B, dim) and (C, dim), or each image's own texts (B, C, dim), of any length -> (B, C) logits: cosines times e to
        the logit scale, which is at most 100.  In float32 under autocast too: bfloat16 has ties among a thousand texts."""
        with in_float32(image.device):
            image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
            cosine = image @ text.t() if text.dim() == 2 else torch.einsum("bd,bcd->bc", image, text)
        return self.logit_scale.clamp(max=HIGHEST_LOGIT_SCALE).exp() * cosine
