"""DINO (Caron et al. 2021, arXiv 2104.14294): DreamBooth's measure of subject fidelity (Ruiz et al. 2022, arXiv 2208.12242,
section 4.1), the cosine of class tokens.  DreamBooth takes ViT-S/16; whichever folder is given, the record names it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vltune.errors import UserError
from vltune.judges.folder import check_folder, identity_of, model, opened
from vltune.judges.judge import Judge


class Dino(Judge):
    """folder: of transformers' ViTModel or Dinov2Model with its preprocessor, such as facebook/dino-vits16."""

    pictures = "dino"

    def __init__(self, folder: str):
        from transformers import AutoImageProcessor, AutoModel

        super().__init__()
        setting = "task.judges.dino.folder"
        self.folder = check_folder(folder, setting)
        self.processor = opened(AutoImageProcessor.from_pretrained, self.folder, setting)
        self.model = model(AutoModel.from_pretrained, self.folder, setting, unread="pooler.")
        if hasattr(self.model, "text_model"):
            raise UserError(
                f"{setting}={folder}: is a {type(self.model).__name__}, which reads texts; give one of DINO"
            )

    @property
    def identity(self) -> str:
        return identity_of(self.folder, type(self.model).__name__)

    def embed(self, pictures: Tensor) -> Tensor:
        seen = self.processor(images=list(pictures.cpu()), return_tensors="pt").pixel_values
        token = self.model(seen.to(self.model.device)).last_hidden_state[:, 0]
        return F.normalize(token, dim=-1)[:, None]
