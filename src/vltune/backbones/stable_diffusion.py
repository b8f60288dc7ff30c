"""Stable Diffusion (Rombach et al. 2022, arXiv 2112.10752): diffusers' UNet and autoencoder, transformers' text encoder.

Modules, names of parameters and attention processors are theirs.  The autoencoder is never trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vltune.backbones.backbone import Backbone
from vltune.backbones.diffusion_sites import expose_text, expose_unet
from vltune.batch import Batch
from vltune.errors import UserError
from vltune.layout import Summary
from vltune.nn.fold import Fold
from vltune.sites import place, sites

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class StableDiffusion(Backbone):
    """pipelines: to choose from by `model`, each with the configurations of its `unet` (a UNet2DConditionModel's), `text`
        (a CLIPTextModel's), `vae` (an AutoencoderKL's, or {fold: pixels} for a `Fold`) and `scheduler` (a DDIMScheduler's).
    image_size: pixels of a picture's side.
    coordinates: the UNet reads two channels more, which say where each of the others lies, from -1 to 1.
    weight_bound: a step weighs 1 / (1 - abar) in the loss, so much at most; None: every step weighs 1.
    gradient_checkpointing: in training the UNet keeps fewer activations and computes the others again: less memory, more
        time, the same gradients.
    """

    def __init__(
        self,
        pipelines: dict[str, dict],
        model: str,
        image_size: int,
        coordinates: bool = False,
        weight_bound: float | None = None,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        if model not in pipelines:
            raise UserError(f"backbone.model={model}: must be one of {', '.join(pipelines)}")
        parts = pipelines[model]
        self.coordinates, self.weight_bound = coordinates, weight_bound
        self.unet = UNet2DConditionModel(**listed(parts["unet"]))
        self.text = CLIPTextModel(CLIPTextConfig(**parts["text"]))
        self.vae = Fold(parts["vae"]["fold"]) if "fold" in parts["vae"] else AutoencoderKL(**listed(parts["vae"]))
        self.scheduler = DDIMScheduler(**parts["scheduler"])
        self.width = self.pooled_width = self.unet.config.cross_attention_dim
        self.latent_shape = self.shape_of(image_size)
        self.check()
        self.text_summary = Summary()
        expose_unet(self.unet)
        place(self.unet, "fusion")
        expose_text(self.text)
        place(self.text, "text")
        for site in sites(self.text):
            site.summary = self.text_summary
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def check(self) -> None:
        """UserError where the parts do not fit each other, or the UNet predicts what no picture is painted of here."""
        if (kind := self.scheduler.config.prediction_type) not in PREDICTIONS:
            raise UserError(f"the scheduler says prediction_type={kind}: must be one of {', '.join(PREDICTIONS)}")
        width, taken = self.text.config.hidden_size, self.unet.config.in_channels
        if width != self.width:
            raise UserError(f"the UNet reads texts of width {self.width}, and the text encoder gives {width}")
        if taken != self.latent_shape[0] + 2 * self.coordinates:
            raise UserError(
                f"the UNet takes {taken} channels, and latents have {self.latent_shape[0]}"
                f"{' and two coordinates' if self.coordinates else ''}: it is no text-to-image model's"
            )

    def shape_of(self, image_size: int) -> tuple[int, int, int]:
        """(C, h, w) of a square picture's latents.  UserError where the autoencoder, or the UNet, cannot hold it."""
        folded = isinstance(self.vae, Fold)
        shrinks = self.vae.size if folded else 2 ** (len(self.vae.config.block_out_channels) - 1)
        channels = 3 * self.vae.size**2 if folded else self.vae.config.latent_channels
        step = shrinks * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if image_size % step:
            raise UserError(f"backbone.image_size={image_size}: must be a multiple of {step} pixels")
        return channels, image_size // shrinks, image_size // shrinks

    @property
    def train_steps(self) -> int:
        return self.scheduler.config.num_train_timesteps

    def own_parameters(self) -> list[nn.Parameter]:
        """The UNet's."""
        return [*self.unet.parameters()]

    def towers(self) -> dict[str, list[nn.Module]]:
        """What gives latents costs nothing where it has no parameters, and is not kept."""
        return {"text": [self.text]} | ({} if isinstance(self.vae, Fold) else {"image": [self.vae]})

    def text_features(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T) -> (B, T, width).  mask: is not needed, as the network sees a text's padding too."""
        self.text_summary.place = (ids == self.text.config.eos_token_id).int().argmax(1)
        return self.text(input_ids=ids).last_hidden_state

    def embed_prompt(self, batch: Batch, text: str = "text") -> Tensor:
        features = batch.get(f"{text}_features")
        return self.text_features(batch[f"{text}_ids"], None) if features is None else features

    def embed_words(self, ids: Tensor) -> Tensor:
        return self.text.get_input_embeddings().weight[ids].detach()

    def text_is_fixed(self, trains: Callable[[nn.Module], bool]) -> bool:
        return not trains(self.text)

    def image_features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h w, 2 C): means and logarithms of variances."""
        found = self.vae.encode(image)
        moments = found if isinstance(self.vae, Fold) else found.latent_dist.parameters
        return moments.flatten(2).transpose(1, 2)

    def encode_picture(self, batch: Batch, image: str = "image") -> Tensor:
        """In training mode drawn from what the autoencoder's encoder gives, else its mean; float32 under autocast too: in
        bfloat16 the first steps would add no noise."""
        features = batch.get(f"{image}_features")
        features = self.image_features(batch[image]) if features is None else features
        found = features.float().transpose(1, 2).unflatten(2, self.latent_shape[1:])
        if isinstance(self.vae, Fold):
            return found
        mean, log_variance = found.chunk(2, dim=1)
        if self.training:
            mean = mean + torch.randn_like(mean) * (0.5 * log_variance.clamp(-30, 20)).exp()
        return (mean - (self.vae.config.shift_factor or 0)) * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        if isinstance(self.vae, Fold):
            return self.vae.decode(latents).clamp(-1, 1)
        latents = latents / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0)
        return self.vae.decode(latents).sample.clamp(-1, 1)

    def denoise(self, latents: Tensor, steps: Tensor, text: Tensor) -> Tensor:
        if self.coordinates:
            latents = torch.cat([latents, places(latents)], dim=1)
        return self.unet(latents, steps, text).sample

    def errors(self, latents: Tensor, text: Tensor) -> Tensor:
        steps = torch.randint(self.train_steps, (len(latents),), device=latents.device)
        noise = torch.randn_like(latents)
        found = self.denoise(self.noised(latents, noise, steps), steps, text)
        errors = F.mse_loss(found.float(), self.target(latents, noise, steps).float(), reduction="none")
        return errors.flatten(1).mean(1) * self.loss_weight(steps)

    def noised(self, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """(B, C, h, w), twice, and (B,) int64 -> (B, C, h, w): the first with as much of the second as the steps say."""
        return self.scheduler.add_noise(latents, noise, steps)

    def target(self, latents: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """What `denoise` should give."""
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return noise
        return latents if kind == "sample" else self.scheduler.get_velocity(latents, noise, steps)

    def kept(self, steps: Tensor) -> Tensor:
        """(B,) -> (B,): abar, the share of a picture's variance that a step leaves."""
        return self.scheduler.alphas_cumprod.to(steps.device)[steps]

    def loss_weight(self, steps: Tensor) -> Tensor:
        """(B,) -> (B,)"""
        if self.weight_bound is None:
            return torch.ones(len(steps), device=steps.device)
        return (1 / (1 - self.kept(steps))).clamp(max=self.weight_bound)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        return torch.stack(
            [torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        ).to(self.unet.device)

    def check_sampler(self, steps: int) -> None:
        if steps > self.train_steps:
            most = f"the backbone was trained on {self.train_steps}; give so many at most"
            raise UserError(f"task.sampler_steps={steps}: {most}")
        if self.scheduler.config.prediction_type == "epsilon" and not self.kept(self.sampler(steps)[1][0]) > 0:
            told = "a sampler would begin where no signal is left, and epsilon tells nothing of the picture there"
            raise UserError(f"{told}: the scheduler's rescale_betas_zero_snr needs v_prediction or sample")

    def sampler(self, steps: int, device: torch.device | None = None) -> tuple[Any, Tensor]:
        """diffusers' DDIM, and the steps that it takes; where it takes all, an offset would pass the last."""
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=device)
        return scheduler, scheduler.timesteps.clamp(max=self.train_steps - 1)

    @torch.no_grad()
    def paint(self, text: Tensor, empty: Tensor, noise: Tensor, steps: int = 25, guidance: float = 2.0) -> Tensor:
        """By DDIM (Song et al. 2020, arXiv 2010.02502).  guidance: 1 asks the network once a step, for the text alone."""
        scheduler, taken = self.sampler(steps, noise.device)
        guided = guidance != 1
        texts = torch.cat([text, empty.expand(len(text), -1, -1)]) if guided else text
        latents = noise * scheduler.init_noise_sigma
        for step in taken:
            both = latents.repeat(2, 1, 1, 1) if guided else latents
            predicted = self.denoise(both, step.expand(len(both)), texts)
            if guided:
                told, untold = predicted.chunk(2)
                predicted = untold + guidance * (told - untold)
            latents = scheduler.step(predicted, step, latents).prev_sample
        return self.decode(latents)


def places(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 2, h, w): of each cell how far right and how far down it lies, from -1 to 1."""
    count, _, height, width = latents.shape
    right, down = (torch.linspace(-1, 1, size, device=latents.device, dtype=latents.dtype) for size in (width, height))
    return torch.stack([right.expand(height, width), down[:, None].expand(height, width)]).expand(count, -1, -1, -1)


def listed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's, with tuples where diffusers wants them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
