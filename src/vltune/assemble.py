"""From a resolved configuration to objects.  The only place that reads both."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.errors import UserError

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from vltune.engine.settings import Settings
    from vltune.engine.source import GeneratedData, TrainingData
    from vltune.tasks.model import Model


def find(target: str) -> Callable:
    """The object that a dotted name of vltune's own means; a record from elsewhere may name nothing else."""
    module, _, name = target.rpartition(".")
    if not module.startswith("vltune."):
        raise UserError(f"{target}: a configuration may only name what is in vltune")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise UserError(f"{target}: no such thing in vltune") from None


def build(spec: dict, **more: Any) -> Any:
    """Calls `_target_` with those of the other keys that it takes, and with `more`."""
    make = find(spec["_target_"])
    takes = inspect.signature(make).parameters
    return make(**{key: value for key, value in spec.items() if key in takes}, **more)


def build_method(spec: dict):
    """A method takes every key of its configuration, so that a misspelt one is told."""
    make, given = find(spec["_target_"]), {k: v for k, v in spec.items() if k not in ("_target_", "name")}
    known = inspect.signature(make).parameters
    for key in given:
        if key not in known:
            raise UserError(f"method.{key}: {spec['name']} has no such setting; it has {', '.join(known) or 'none'}")
    return make(**given)


def settings(config: dict) -> Settings:
    from vltune.engine.settings import Settings

    return Settings(**config["engine"])


def data_folder(config: dict) -> Path:
    return Path(config["dataset"]["data_dir"]) / config["dataset"]["subfolder"]


def make_data(config: dict) -> None:
    """Generates an embedded world on first use; real data must be there already."""
    dataset = config["dataset"]
    if "generate" in dataset and config["task"].get("reader"):
        from vltune.data.shapes import ensure

        ensure(Path(dataset["data_dir"]), **dataset["generate"])


def tokenizer(config: dict):
    from vltune.data.tokenizer import Tokenizer
    from vltune.weights.files import locate

    spec = config["backbone"]
    return Tokenizer(locate(spec["tokenizer"]["vocabulary"]), spec["max_text_len"])


@dataclass
class Data:
    """facts: what a task is built from.  split(name): a dataset to score, or None where there is none of that name."""

    training: Callable[[], TrainingData | GeneratedData]
    split: Callable[[str], Dataset | None]
    collate: Callable
    facts: dict
    fingerprint: str
    eval_batch_size: int


def open_data(config: dict) -> Data:
    """Raises UserError where a file is missing, before any work."""
    return open_files(config) if config["task"].get("reader") else open_generated(config)


def open_files(config: dict) -> Data:
    from vltune.data.collate import Collate
    from vltune.data.transforms import MinMaxResize
    from vltune.engine.source import TrainingData

    dataset, settings, folder = config["dataset"], config["engine"], data_folder(config)
    words = tokenizer(config)
    transform = MinMaxResize(**config["backbone"]["transform"], randaugment=dataset["randaugment"])
    read = partial(
        find(config["task"]["reader"]), folder, tokenizer=words, transform=transform, images=dataset["images"]
    )
    train = read(dataset["train"])
    collate = Collate(words.pad_id, transform.mean, transform.std)
    return Data(
        training=lambda: TrainingData(train, collate, settings["batch_size"], config["seed"], settings["workers"]),
        split=cache(lambda name: read(dataset[name]) if dataset[name] else None),
        collate=collate,
        facts={"answers": train.answers or [str(i) for i in range(dataset["answers"])]},
        fingerprint=train.fingerprint,
        eval_batch_size=settings["eval_batch_size"],
    )


def open_generated(config: dict) -> Data:
    from vltune.data.shapes.pretraining import PretrainingBatches
    from vltune.engine.source import GeneratedData

    words, size = tokenizer(config), config["engine"]["batch_size"]
    stream = partial(
        PretrainingBatches,
        tokenizer=words,
        max_text_len=config["task"]["caption_tokens"],
        patch_size=config["backbone"]["patch_size"],
    )
    training = stream(seed=config["seed"], batch_size=config["engine"]["micro_batch_size"] or size)
    held_out = stream(seed=HELD_OUT_SEED, batch_size=size)
    return Data(
        training=lambda: GeneratedData(
            partial(numbered, training), steps_per_epoch=1000, workers=config["engine"]["workers"]
        ),
        split=lambda name: [numbered(held_out, i) for i in range(HELD_OUT_BATCHES)] if name == "val" else None,
        collate=lambda batches: batches[0],
        facts={
            "vocabulary_size": words.size,
            "mask_id": words.mask_id,
            "attributes": PretrainingBatches.attribute_classes,
        },
        fingerprint="generated",
        eval_batch_size=1,
    )


HELD_OUT_SEED, HELD_OUT_BATCHES = 2**31 - 1, 32


def numbered(stream, step: int) -> dict:
    batch = stream.batch(step)
    return batch | {"ids": list(range(step * len(batch["image"]), (step + 1) * len(batch["image"])))}


def build_model(config: dict, facts: dict, pretrained: bool = True) -> Model:
    """A model with the pretrained weights that the configuration names, or with random ones.  facts: see `Data`."""
    from vltune.tasks.model import Model

    backbone = build(config["backbone"])
    if pretrained and config["weights"] is not None:
        from vltune.weights.files import find as find_file

        find(config["backbone"]["loader"])(backbone, find_file(config["weights"]), tokenizer(config).cls_id)
    return Model(
        backbone, build(config["task"], in_width=backbone.pooled_width, **facts), build_method(config["method"])
    )
