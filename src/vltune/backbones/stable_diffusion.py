"""Stable Diffusion (Rombach et al. 2022, arXiv 2112.10752): a UNet that takes noise from latents, as a text says.

The UNet, the text encoder and the VAE are diffusers' and transformers' own modules, whose names and code stay as they are;
sites are put on them (`vltune.nn.hosted`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.backbones.backbone import Backbone
from vltune.batch import Batch
from vltune.errors import UserError
from vltune.nn.hosted import expose_denoiser, expose_text_encoder
from vltune.sites import place

PREDICTIONS = ("epsilon", "v_prediction", "sample")
GUIDED = 2  # times a batch, where the prompt is set against the empty one


class Fold(nn.Module):
    """(B, 3, H, W) <-> (B, 3 side^2, H / side, W / side): squares of pixels as channels, in the place of a VAE."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def encode(self, image: Tensor) -> Tensor:
        return F.pixel_unshuffle(image, self.side)

    def decode(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(latents, self.side)


class StableDiffusion(Backbone):
    """models: to choose from by `model`, each of {unet: of diffusers' UNet2DConditionModel, text: of transformers'
        CLIPTextConfig, scheduler: of diffusers' DDIMScheduler, vae: of diffusers' AutoencoderKL or {fold: pixels}}, the
        arguments as the files of a checkpoint hold them.
    image_size: pixels of a picture's side.
    gradient_checkpointing: training keeps fewer activations of the UNet, and computes them twice.
    """

    def __init__(
        self, models: Mapping[str, Mapping[str, Any]], model: str, image_size: int, gradient_checkpointing: bool = False
    ):
        from diffusers import DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        super().__init__()
        if model not in models:
            raise UserError(f"backbone.model={model}: must be one of {', '.join(models)}")
        sizes = models[model]
        self.unet = UNet2DConditionModel(**sizes["unet"])
        self.text = CLIPTextModel(CLIPTextConfig(**sizes["text"]))
        self.vae = Fold(**sizes["vae"])
        self.scheduler = DDIMScheduler(**sizes["scheduler"])
        self.width = self.pooled_width = self.text.config.hidden_size
        self.image_size, self.train_steps = image_size, self.scheduler.config.num_train_timesteps
        self.prediction = self.scheduler.config.prediction_type
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        expose_denoiser(self.unet)
        expose_text_encoder(self.text)
        place(self.unet, "fusion")
        place(self.text, "text")
        shape = self.unet.config.out_channels, *(image_size // self.vae.side,) * 2
        self.latent_shape = shape
        ends = torch.linspace(-1, 1, shape[2]), torch.linspace(-1, 1, shape[1])
        where = torch.stack([ends[0].expand(shape[1:]), ends[1][:, None].expand(shape[1:])])
        coordinates = where if self.unet.config.in_channels > shape[0] else where[:0]
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.register_buffer("kept", self.scheduler.alphas_cumprod, persistent=False)

    def padded(self, ids: Sequence[int]) -> Tensor:
        """(1, T): as long as every text is."""
        config = self.text.config
        return torch.tensor([[*ids, *[config.pad_token_id] * (config.max_position_embeddings - len(ids))]])

    def embed_prompt(self, batch: Batch, text: str = "text") -> Tensor:
        return self.text(batch[f"{text}_ids"]).last_hidden_state

    def embed_words(self, ids: Tensor) -> Tensor:
        return self.text.get_input_embeddings().weight[ids].detach()

    def picture_features(self, image: Tensor) -> Tensor:
        return self.vae.encode(image)

    def encode_picture(self, batch: Batch, image: str = "image") -> Tensor:
        features = batch.get(f"{image}_features")
        return self.picture_features(batch[image]) if features is None else features

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """(B, C, h, w), each its own seed's on every device and in any company."""
        return torch.stack([torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(s)) for s in seeds])

    def denoise(self, latents: Tensor, steps: Tensor, text: Tensor) -> Tensor:
        where = self.coordinates.expand(len(latents), -1, -1, -1).to(latents.dtype)
        return self.unet(torch.cat([latents, where], 1), steps, text).sample

    def noised(self, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        kept = self.kept[steps][:, None, None, None]
        return kept.sqrt() * latents + (1 - kept).sqrt() * noise

    def target(self, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        kept = self.kept[steps][:, None, None, None]
        if self.prediction == "epsilon":
            return noise
        return latents if self.prediction == "sample" else kept.sqrt() * noise - (1 - kept).sqrt() * latents

    def loss_weight(self, steps: Tensor) -> Tensor:
        if self.prediction != "sample":
            return torch.ones_like(steps, dtype=torch.float32)
        return (1 / (1 - self.kept[steps])).clamp(max=5.0)

    def decode(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents).clamp(-1, 1)

    def paint(self, text: Tensor, empty: Tensor, noise: Tensor, steps: int = 25, guidance: float = 2.0) -> Tensor:
        from diffusers import DDIMScheduler

        sampler, latents = DDIMScheduler.from_config(self.scheduler.config), noise
        sampler.set_timesteps(steps)
        texts = text if guidance == 1 else torch.cat([text, empty])
        for step in sampler.timesteps:
            at = step.to(latents.device).expand(len(texts))
            found = self.denoise(latents.repeat(len(texts) // len(text), 1, 1, 1), at, texts)
            if guidance != 1:
                told, untold = found.chunk(GUIDED)
                found = untold + guidance * (told - untold)
            latents = sampler.step(found, step, latents).prev_sample
        return self.decode(latents)

    def text_is_fixed(self, trains: Callable[[nn.Module], bool]) -> bool:
        return not trains(self.text)
