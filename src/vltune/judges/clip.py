"""CLIP (Radford et al. 2021, arXiv 2103.00020) as DreamBooth measures with it (Ruiz et al. 2022, arXiv 2208.12242, section
4.1): CLIP-I, the cosine of two pictures, and CLIP-T, that of a picture and its prompt; plain cosines, not CLIPScore's 2.5
times one that is cut at 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from vltune.judges.folder import check_folder, identity_of, model, opened
from vltune.judges.judge import Judge


class ClipJudge(Judge):
    """folder: of transformers' CLIPModel with its preprocessor and tokenizer, such as openai/clip-vit-base-patch32."""

    pictures = "clip_i"
    texts = "clip_t"

    def __init__(self, folder: str):
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        super().__init__()
        setting = "task.judges.clip.folder"
        self.folder = check_folder(folder, setting, reads=True)
        self.processor = opened(CLIPImageProcessor.from_pretrained, self.folder, setting)
        self.tokenizer = opened(CLIPTokenizer.from_pretrained, self.folder, setting)
        self.model = model(CLIPModel.from_pretrained, self.folder, setting)
        self.last: tuple[Tensor, Tensor] | None = None
        """The pictures that it saw last, and what it saw."""

    @property
    def identity(self) -> str:
        return identity_of(self.folder, type(self.model).__name__)

    def embed(self, pictures: Tensor) -> Tensor:
        return F.normalize(self._image(pictures), dim=-1)[:, None]

    def agreement(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        texts = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        pooled = self.model.text_model(**texts).pooler_output
        return F.cosine_similarity(self._image(pictures), self.model.text_projection(pooled), dim=-1)

    def _image(self, pictures: Tensor) -> Tensor:
        if self.last is None or self.last[0] is not pictures:
            seen = self.processor(images=list(pictures.cpu()), return_tensors="pt").pixel_values
            pooled = self.model.vision_model(seen.to(self.model.device)).pooler_output
            self.last = pictures, self.model.visual_projection(pooled)
        return self.last[1]
