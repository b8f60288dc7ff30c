"""Swin Transformer (Liu et al. 2021, arXiv 2103.14030) as an image tower: timm's, all tokens of the last stage."""

from __future__ import annotations

from torch import Tensor, nn

from vltune.sites import Site

REDUCTION = 32  # pixels a side that become one token of the last stage


class SwinTower(nn.Module):
    """(B, 3, image_size, image_size) -> (B, tokens, width), normalised; pooled by averaging, there is no class token.

    model: timm's name of it, such as swin_base_patch4_window12_384.  sizes: what else it is built from.
    A window is as large as the last stage's image, as METER has it at every resolution; timm's stays that of the name.
    Its sites are the outputs of attention, over the tokens of one window, and of the feed-forward sublayer, over the image.
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
                expose(block.attn, Site("attention_output", block.dim, linear=block.attn.proj))
                expose(block.mlp, Site("feed_forward_output", block.dim, linear=block.mlp.fc2))

    def forward(self, image: Tensor) -> Tensor:
        return self.body.forward_features(image).flatten(1, 2)


def expose(sublayer: nn.Module, site: Site) -> None:
    """Puts a site at the output of a module that is not ours, whose own names stay as they are."""
    sublayer.at_output = site
    sublayer.register_forward_hook(pass_site)


def pass_site(sublayer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """The hook is given its own module, so that a copy of a backbone passes the copy's site."""
    return sublayer.at_output(output, inputs[0])
