"""Tiny backbones with random weights, and a batch for them."""

from pathlib import Path

import torch

from vltune.backbones.clip import Clip
from vltune.backbones.meter import Meter
from vltune.backbones.vilt import Vilt
from vltune.engine.session import Session
from vltune.engine.source import BadExamples, Data
from vltune.loggers.none import NoLogger
from vltune.settings.engine import Settings
from vltune.sites import sites
from vltune.tasks.image_classification import ImageClassification

WIDTH, ANSWERS, VOCABULARY, TEXT = 32, ["yes", "no", "red", "2"], 120, 12


def vilt(**more):
    torch.manual_seed(0)
    sizes = {
        "width": WIDTH,
        "layers": 2,
        "heads": 4,
        "hidden": 64,
        "patch_size": 16,
        "image_size": 64,
        "token_types": 3,
    }
    return Vilt(**{**sizes, "vocabulary_size": VOCABULARY, "max_text_len": TEXT, "dropout": 0.0, **more}).eval()


def meter(text_dropout=0.0, **more):
    torch.manual_seed(0)
    tower = {"layers": 2, "heads": 2, "hidden": 48}
    text = {**tower, "width": 24, "vocabulary_size": VOCABULARY, "positions": TEXT + 2, "dropout": text_dropout}
    image = {**tower, "kind": "clip", "width": 40, "patch_size": 16, "image_size": 64}
    sizes = {"width": WIDTH, "layers": 2, "heads": 4, "hidden": 64, "token_types": 3, "dropout": 0.0}
    return Meter(text_tower=text, image_tower="clip", image_towers={"clip": image}, **{**sizes, **more}).eval()


CLASSES, END_OF_TEXT = ["red", "green", "dark blue"], VOCABULARY - 1


def clip(**more):
    torch.manual_seed(0)
    tower = {"layers": 2, "heads": 2}
    text = {
        **tower,
        "width": 24,
        "hidden": 48,
        "vocabulary_size": VOCABULARY,
        "positions": 30,
        "end_of_text": END_OF_TEXT,
    }
    image = {**tower, "width": 40, "hidden": 80, "patch_size": 16, "image_size": 64}
    return Clip(**{"models": {"tiny": {"text": text, "image": image, "dim": 20}}, "model": "tiny", **more}).eval()


class Words:
    """A tokenizer of few words."""

    max_length = TEXT

    def __call__(self, text):
        return [1, *(2 + sum(map(ord, word)) % 100 for word in text.split()), END_OF_TEXT]


def classification(in_width=20, width=20, **more):
    return ImageClassification(in_width, CLASSES, ["a photo of a {}"], Words(), **more)


SIZES = ((64, 80), (48, 64), (64, 64))  # images that differ, for backbones that take any
SQUARE = ((64, 64),) * 3


def images(sizes=SIZES, seed=0):
    """Zero-padded at the right and bottom, and each one's height and width."""
    sizes = torch.tensor(sizes)
    height, width = sizes.amax(0).tolist()
    image = torch.randn(len(sizes), 3, height, width, generator=torch.Generator().manual_seed(seed))
    for row, (h, w) in zip(image, sizes.tolist(), strict=True):
        row[:, h:], row[:, :, w:] = 0, 0
    return image, sizes


def texts(lengths=(12, 7, 9), seed=0):
    lengths = torch.tensor(lengths)
    ids = torch.randint(
        1, VOCABULARY, (len(lengths), int(lengths.max())), generator=torch.Generator().manual_seed(seed)
    )
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]


FALSE_CAPTIONS = 2


def batch(sizes=SIZES, seed=0):
    """Three examples for every task: images of several sizes, texts of several lengths."""
    count = len(sizes)
    made = {
        "ids": list(range(count)),
        "pair": ["a", "a", "b"][:count],
        "sentence": [0, 1, 0][:count],
        "label": torch.arange(count) % 2,
    }
    for number, name in enumerate(("image", "image_0", "image_1")):
        made[name], made[f"{name}_size"] = images(sizes, seed + number)
    made["text_ids"], made["text_mask"] = texts((12, 7, 9)[:count], seed)
    lengths = (5, 9, 8, 9, 7, 6)[: FALSE_CAPTIONS * count]
    made["false_text_ids"], made["false_text_mask"] = texts(lengths, seed + 1)
    return made | {
        "answer_labels": [[i % len(ANSWERS), 3] for i in range(count)],
        "answer_scores": [[1.0, 0.3] for _ in range(count)],
        "labelled": [True] * count,
    }


def alone(batch, row, text_length, image_length):
    """One example of a batch by itself, without padding."""
    height, width = image_length
    made = {
        "text_ids": batch["text_ids"][row : row + 1, :text_length],
        "text_mask": batch["text_mask"][row : row + 1, :text_length],
    }
    for name in ("image", "image_0", "image_1"):
        made[name] = batch[name][row : row + 1, :, :height, :width]
        made[f"{name}_size"] = batch[f"{name}_size"][row : row + 1]
    return made


def tuned_sites(module):
    """Where a method acts."""
    return [site for site in sites(module) if site.delta is not None]


class Log(NoLogger):
    """Calls a function with each point of a learning curve."""

    def __init__(self, call):
        self.call = call

    def log(self, values, step):
        self.call(values, step)


def session(fabric, model, folder, stop, **more):
    """A run without files.  more: what of it is not as usual; `training`, `split`, `collate` and `eval_batch_size` of its
    data, `allowed`, how many examples may be bad, `settings`, and whatever else a Session has."""
    data = {"training": None, "split": lambda name: None, "collate": None, "eval_batch_size": 2}
    data = Data(**{name: more.pop(name, usual) for name, usual in data.items()}, facts={}, fingerprint="test")
    settings = more.pop("settings", None) or Settings(lr=1e-2, accelerator="cpu", workers=0)
    bad, folder = BadExamples(more.pop("allowed", 0)), Path(folder)
    return Session(fabric, model, data, settings, folder / "record.json", folder, stop, bad, **more)
