"""Where a text-to-image model has sites: in diffusers' UNet2DConditionModel and in transformers' CLIPTextModel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vltune.errors import UserError
from vltune.layout import PatchGrid, PatchLayout
from vltune.nn.hosted import expose_block, expose_output, expose_part
from vltune.nn.hosted_attention import expose_attention
from vltune.sites import TokenSite, lay


def expose_unet(unet: nn.Module) -> None:
    """Sites in every transformer block, and one at the text that enters them all."""
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    for part in unet.modules():
        if isinstance(part, Transformer2DModel):
            part.grid_layout = PatchLayout()
            part.register_forward_pre_hook(lay_grid)
            for block in (each for each in part.modules() if isinstance(each, BasicTransformerBlock)):
                expose_unet_block(block, part.grid_layout)
    unet.at_sequence = TokenSite("sequence", unet.config.cross_attention_dim)
    unet.register_forward_pre_hook(extend_text, with_kwargs=True)


def expose_unet_block(block: nn.Module, layout: PatchLayout) -> None:
    """UserError where a step's embedding norms its tokens, which no site's layer does."""
    if block.norm_type != "layer_norm":
        raise UserError(f"the UNet's blocks have {block.norm_type}, which is not supported: use another UNet")
    width = block.norm1.normalized_shape[0]
    for norm in (block.norm1, block.norm2, block.norm3):
        if norm is not None:
            expose_part(norm, "norm")
    expose_part(block.ff.net[0].proj, "feed_forward_up")
    expose_part(block.ff.net[2], "feed_forward_down")
    expose_output(block.ff, "feed_forward_output", width)
    for attention, norm in ((block.attn1, block.norm1), (block.attn2, block.norm2)):
        if attention is not None:
            expose_attention(attention, None if attention.is_cross_attention else norm)
    expose_block(block, width)
    lay(block, layout)
    for attention in (block.attn1, block.attn2):
        if attention is not None and attention.is_cross_attention:
            for part in (attention.to_k, attention.to_v, attention.at_memory, attention.at_keys_values):
                lay(part, None)  # which see the text


def lay_grid(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    part.grid_layout.grid = PatchGrid(*inputs[0].shape[2:])


def extend_text(unet: nn.Module, arguments: tuple, options: dict) -> tuple[tuple, dict] | None:
    """A method's tokens join the text once, and are never masked."""
    if unet.at_sequence.delta is None:
        return None
    options = dict(zip(("sample", "timestep", "encoder_hidden_states"), arguments, strict=False)) | options
    if len(arguments) > 3:
        raise UserError("the UNet takes a batch, steps and texts in a row; name what else it is given")
    text = options["encoder_hidden_states"]
    tokens, _ = unet.at_sequence(text, None)
    options["encoder_hidden_states"] = tokens
    if (mask := options.get("encoder_attention_mask")) is not None:
        options["encoder_attention_mask"] = F.pad(mask, (0, tokens.shape[1] - text.shape[1]), value=True)
    return (), options


def expose_text(encoder: nn.Module) -> None:
    """The sites of a block of ours, in transformers'; and where ids become tokens."""
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer

    words = encoder.get_input_embeddings()
    expose_output(words, "words", words.embedding_dim)
    for layer in (each for each in encoder.modules() if isinstance(each, CLIPEncoderLayer)):
        attention, feed_forward, width = layer.self_attn, layer.mlp, layer.embed_dim
        for part, role in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "projection")):
            expose_part(getattr(attention, part), role)
        for role in ("attention_output", "parallel_output"):
            expose_output(attention, role, width)
        expose_part(feed_forward.fc1, "feed_forward_up")
        expose_part(feed_forward.fc2, "feed_forward_down")
        expose_output(feed_forward, "feed_forward_output", width)
        for norm in (layer.layer_norm1, layer.layer_norm2):
            expose_part(norm, "norm")
        expose_block(layer, width, causal=True)
