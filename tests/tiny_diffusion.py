"""A tiny Stable Diffusion with random weights, and inputs for it."""

import torch

from vltune.backbones.stable_diffusion import StableDiffusion
from vltune.tasks.subject import Subject

WORDS, TEXT, WIDTH, END = 60, 10, 24, 59
UNET = {
    "sample_size": 8,
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
ENCODER = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": TEXT,
    "bos_token_id": 1,
    "eos_token_id": END,
    "pad_token_id": END,
}
VAE = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "scaling_factor": 0.18215,
}
SCHEDULER = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}


def stable_diffusion(unet=(), vae=None, scheduler=(), text=(), **more):
    """Linear weights are as large as trained ones: with those of the start attention hardly attends."""
    torch.manual_seed(0)
    parts = {
        "unet": UNET | dict(unet),
        "text": ENCODER | dict(text),
        "vae": vae or VAE,
        "scheduler": SCHEDULER | dict(scheduler),
    }
    backbone = StableDiffusion(**{"pipelines": {"tiny": parts}, "model": "tiny", "image_size": 16, **more}).eval()
    with torch.no_grad():
        for layer in backbone.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(0.2 / layer.weight.std())
    return backbone


def folded(**more):
    """As the mini: no autoencoder, coordinates, what it predicts is the picture."""
    unet = {"in_channels": 50, "out_channels": 48}
    scheduler = {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True}
    scheduler |= {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": True}
    return stable_diffusion(unet, {"fold": 4}, scheduler, coordinates=True, weight_bound=5.0, image_size=32, **more)


def ids(count=2, seed=0):
    """(count, TEXT) of texts of several lengths, padded with the end of text."""
    made = torch.randint(2, END, (count, TEXT), generator=torch.Generator().manual_seed(seed))
    made[:, 0] = 1
    for row, text in enumerate(made):
        text[5 + row % 4 :] = END
    return made


def inputs(backbone, count=2, seed=0):
    """Latents, steps and texts for `denoise`."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, *backbone.latent_shape, generator=generator)
    steps = torch.randint(backbone.train_steps, (count,), generator=generator)
    return latents, steps, torch.randn(count, TEXT, backbone.width, generator=generator)


class Words:
    """A word is a token by its first letter; every text is padded to TEXT tokens."""

    cls_id, sep_id, pad_id, max_length = 1, END, END, TEXT

    def __call__(self, text):
        found = [2 + ord(letter) % 50 for word in text.split() for letter in (word[0], *word[6:7])]
        return ([1, *found[: TEXT - 2]] + [END] * TEXT)[:TEXT]


def subject(**more):
    """Its task: a dog, two prompts and two seeds."""
    prompts = ["a {token} {class} in snow", "a {class} beside a {token} {class}"]
    return Subject("dog", prompts, Words(), **{"class_pictures": 3, "seeds": (0, 7), "sampler_steps": 3, **more})


def pictures(count, seed=0):
    """(count, 3, 16, 16) in [-1, 1]"""
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch(count=4):
    return {"ids": [*range(count)], "image": pictures(count)}
