"""From a list of examples to one batch."""

from collections.abc import Sequence

import torch


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

    Returns `ids` (list), `text_ids` (B, T) int64, `text_mask` (B, T) bool, `image` (B, 3, H, W) float32 normalised and
    then zero-padded at the right and bottom to the largest height and width, `image_size` (B, 2) int64 (height, width
    in pixels, before padding), `bad` (list of messages about examples that could not be read, which are left out) and
    every other key of the examples as a list.  A batch with no good example has the keys `ids` and `bad` only.
    """

    def __init__(self, pad_id: int, mean: Sequence[float], std: Sequence[float]):
        self.pad_id = pad_id
        self.mean = 255 * torch.tensor(mean).view(-1, 1, 1)
        self.std = 255 * torch.tensor(std).view(-1, 1, 1)

    def __call__(self, examples: Sequence[dict]) -> dict:
        bad = [example["bad"] for example in examples if "bad" in example]
        good = [example for example in examples if "bad" not in example]
        batch = {"ids": [example["id"] for example in good], "bad": bad}
        if not good:
            return batch
        batch["text_ids"], batch["text_mask"] = pad_tokens([example["text_ids"] for example in good], self.pad_id)
        batch["image"], batch["image_size"] = self._images([example["image"] for example in good])
        others = good[0].keys() - {"id", "text_ids", "image"}
        return batch | {key: [example[key] for example in good] for key in sorted(others)}

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
