"""Tiny backbones with random weights, and a batch for them."""

import torch

from vltune.backbones.vilt import Vilt

WIDTH, ANSWERS, VOCABULARY, TEXT = 32, ["yes", "no", "red", "2"], 120, 12


def vilt(**more):
    torch.manual_seed(0)
    sizes = {"width": WIDTH, "layers": 2, "heads": 4, "hidden": 64, "patch_size": 16, "image_size": 64}
    return Vilt(**{**sizes, "vocabulary_size": VOCABULARY, "max_text_len": TEXT, "dropout": 0.0, **more}).eval()


def batch(images=3, sizes=((64, 80), (48, 64), (64, 64)), text_lengths=(12, 7, 9), seed=0):
    """Images of several sizes, zero-padded; texts of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    sizes, lengths = torch.tensor(sizes[:images]), torch.tensor(text_lengths[:images])
    height, width = sizes.amax(0).tolist()
    image = torch.randn(images, 3, height, width, generator=generator)
    for i, (h, w) in enumerate(sizes.tolist()):
        image[i, :, h:], image[i, :, :, w:] = 0, 0
    length = int(lengths.max())
    return {
        "ids": list(range(images)),
        "text_ids": torch.randint(1, VOCABULARY, (images, length), generator=generator),
        "text_mask": torch.arange(length) < lengths[:, None],
        "image": image,
        "image_size": sizes,
        "answer_labels": [[i % len(ANSWERS), 3] for i in range(images)],
        "answer_scores": [[1.0, 0.3] for _ in range(images)],
        "labelled": [True] * images,
    }
