"""Models of image and text that people try in CLIP's place, by beginnings of keys that no other has."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from vltune.errors import UserError

MARKS = {
    "SigLIP": ("logit_bias", "vision_model.head.", "text_model.head."),
    "CoCa": ("text_decoder.cross_attn.", "visual.attn_pool."),
    "BLIP-2": ("qformer.", "Qformer."),
    "BLIP": ("visual_encoder.", "vision_proj.", "text_decoder.bert.", "text_encoder.encoder.layer.0.crossattention."),
    "ALIGN": ("vision_model.embeddings.convolution.",),
    "Chinese-CLIP": ("text_model.embeddings.word_embeddings.",),
    "AltCLIP": ("text_model.roberta.",),
    "GroupViT": ("vision_model.encoder.stages.",),
    "CLIPSeg": ("decoder.film_mul.",),
    "OWL-ViT": ("owlvit.", "owlv2."),
    "FLAVA": ("flava.",),
    "X-CLIP": ("mit.position_embedding", "prompts_generator."),
    "MobileCLIP": ("image_encoder.model.",),
    "EVA-CLIP": ("visual.cls_token", "visual.blocks."),
    "a CLIP with a ResNet": ("visual.attnpool.", "visual.layer1."),
    "an open_clip model with an image tower of timm's": ("visual.trunk.",),
    "an open_clip model with a text tower of transformers'": (
        "text.transformer.embeddings.",
        "text.transformer.encoder.",
    ),
}


STABLE_DIFFUSION = "Stable Diffusion in one file"
ONE_FILE = "model.diffusion_model."
SPLIT = "diffusers.StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)"


def named(state: Collection[str]) -> str | None:
    """Which of them a state dict is of."""
    if any(key.startswith((ONE_FILE, ONE_FILE.partition(".")[2])) for key in state):
        return STABLE_DIFFUSION
    return next((name for name, marks in MARKS.items() if any(key.startswith(marks) for key in state)), None)


def refuse(state: Collection[str], path: Path) -> None:
    """UserError where it is of one of them."""
    if name := named(state):
        raise UserError(f"{path}: {told(name)}")


def told(name: str) -> str:
    if name == STABLE_DIFFUSION:
        return f"{name}; make a folder of it, {SPLIT}, and give that"
    return f"{name}, which no backbone here reads; backbone=clip takes a CLIP with a ViT, OpenAI's or of that shape"
