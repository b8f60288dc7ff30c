"""From a list of examples to one batch."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch

from vltune.batch import Batch


def pad_tokens(texts: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lists of token ids -> ids (B, T) int64 padded to the longest, and mask (B, T) bool, True at the tokens."""
    lengths = torch.tensor([len(text) for text in texts])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.full(mask.shape, pad_id)
    ids[mask] = torch.tensor([token for text in texts for token in text])
    return ids, mask


class Collate:
    """Examples of a data set -> a batch.

    pad_id: the tokenizer's.  mean, std: per channel, of pixel values in [0, 1].

    Returns `ids` (list), `bad` (list of messages about examples that could not be read, which are left out), and of
    every other key of the examples:
    text_ids -> `text_ids` (B, T) int64, `text_mask` (B, T) bool
    text_features, (t, width) each -> (B, T, width), zero-padded
    false_text_ids, K lists each -> `false_text_ids` and `false_text_mask` (B * K, T'); false_text_features alike
    image, image_0, ...: uint8 (3, h, w) each -> (B, 3, H, W) float32 normalised and then zero-padded at the right and
    bottom to the largest height and width, and `image_size` (B, 2) int64 (height, width in pixels, before padding)
    image_features, ... of one shape -> stacked
    label -> (B,) int64
    any other -> a list
    A batch with no good example has the keys `ids` and `bad` only.
    """

    def __init__(self, pad_id: int, mean: Sequence[float], std: Sequence[float]):
        self.pad_id = pad_id
        self.mean = 255 * torch.tensor(mean).view(-1, 1, 1)
        self.std = 255 * torch.tensor(std).view(-1, 1, 1)

    def __call__(self, examples: Sequence[dict]) -> Batch:
        bad = [example["bad"] for example in examples if "bad" in example]
        good = [example for example in examples if "bad" not in example]
        batch = {"ids": [example["id"] for example in good], "bad": bad}
        for key in sorted(good[0].keys() - {"id"}) if good else ():
            batch |= self._column(key, [example[key] for example in good])
        return batch

    def _column(self, key: str, values: list) -> dict[str, Any]:
        if key.startswith("false_text_"):
            values = list(chain.from_iterable(values))
        if key.endswith("text_ids"):
            ids, mask = pad_tokens(values, self.pad_id)
            return {key: ids, f"{key.removesuffix('_ids')}_mask": mask}
        if key.endswith("text_features"):
            return {key: torch.nn.utils.rnn.pad_sequence(values, batch_first=True)}
        if key.endswith("_features"):
            return {key: torch.stack(values)}
        if key == "label":
            return {key: torch.tensor(values)}
        if isinstance(values[0], torch.Tensor):
            pixels, size = self._images(values)
            return {key: pixels, f"{key}_size": size}
        return {key: values}

    def _images(self, images: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        size = torch.tensor([image.shape[1:] for image in images])
        if (size == size[0]).all():
            return self._normalise(torch.stack(images)), size
        pixels = torch.zeros(len(images), 3, *size.amax(0).tolist(), dtype=torch.uint8)
        for row, image in zip(pixels, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        batch = self._normalise(pixels)
        for row, (height, width) in zip(batch, size.tolist(), strict=True):
            row[:, height:] = 0
            row[:, :, width:] = 0
        return batch, size

    def _normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().sub_(self.mean).div_(self.std)
