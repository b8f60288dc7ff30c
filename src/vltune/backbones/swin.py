"""Swin Transformer (Liu et al. 2021, arXiv 2103.14030) as an image tower: timm's, all tokens of the last stage."""

from __future__ import annotations

from torch import Tensor, nn

from vltune.layout import PatchGrid, PatchLayout
from vltune.nn.hosted import expose_block, expose_output, expose_part
from vltune.sites import lay

REDUCTION = 32  # pixels a side that become one token of the last stage


class SwinTower(nn.Module):
    """(B, 3, image_size, image_size) -> (B, tokens, width), normalised; pooled by averaging, there is no class token.

    model: timm's name of it, such as swin_base_patch4_window12_384.  sizes: what else it is built from.
    A window is as large as the last stage's image, as METER has it at every resolution; timm's stays that of the name.
    Attention's sites see the tokens of one window; those of norms and of the feed-forward sublayer see the image, and the
    feed-forward's say how its patches lie.
    """

    pools_class_token = False

    def __init__(self, model: str, image_size: int, **sizes):
        super().__init__()
        from timm import create_model

        sizes = {"img_size": image_size, "window_size": image_size // REDUCTION, **sizes}
        self.body = create_model(model, pretrained=False, num_classes=0, **sizes)
        self.width = self.body.num_features
        for stage in self.body.layers:
            for block in stage.blocks:
                expose(block)
        self.grid = PatchGrid(*self.body.layers[-1].blocks[-1].input_resolution)

    def forward(self, image: Tensor) -> Tensor:
        return self.body.forward_features(image).flatten(1, 2)


def expose(block: nn.Module) -> None:
    """The sites of a block of ours, in timm's; its query, key and value are one layer."""
    expose_part(block.attn.qkv, "query", "key", "value")
    expose_part(block.attn.proj, "projection")
    expose_part(block.mlp.fc1, "feed_forward_up")
    expose_part(block.mlp.fc2, "feed_forward_down")
    for norm in (block.norm1, block.norm2):
        expose_part(norm, "norm")
    expose_output(block.attn, "attention_output", block.dim)
    expose_output(block.attn, "parallel_output", block.dim)
    expose_output(block.mlp, "feed_forward_output", block.dim)
    expose_block(block, block.dim)
    lay(block.mlp, PatchLayout(PatchGrid(*block.input_resolution)))
