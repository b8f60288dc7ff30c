"""A run's data: where it lies, how it is made, read and shared out in batches."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.assemble.factory import build
from vltune.configuration import find
from vltune.errors import UserError
from vltune.values import said

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from vltune.data.examples import Examples
    from vltune.engine.source import Data

HELD_OUT_SEED, HELD_OUT_BATCHES = 2**31 - 1, 32


def data_folder(config: dict) -> Path:
    return Path(config["dataset"]["data_dir"]) / config["dataset"]["subfolder"]


def examples_of(config: dict, split: str) -> Examples:
    """What a run's predictions of `val` or `test` are about.  UserError where its data is not on this machine."""
    from vltune.data.dataset import open_examples

    dataset, reader = config.get("dataset", {}), config.get("task", {}).get("reader")
    if reader is None or not {"data_dir", "subfolder"} <= dataset.keys() or not dataset.get(split):
        raise UserError(f"the record's configuration names no data for {split}")
    folder = data_folder(config)
    if "generate" in dataset and not folder.exists():
        raise UserError(f"{folder} is not there; any run on it makes it, and the next report shows them")
    return open_examples(reader, folder, dataset[split])


def make_data(config: dict) -> None:
    """Generates an embedded world on first use; real data must be there already."""
    if spec := generated(config):
        from vltune.data.shapes import ensure

        try:
            ensure(**spec)
        except OSError as error:
            named = said("dataset.data_dir", spec["data_dir"])
            raise UserError(f"{named}: cannot be written ({error.strerror or error}); name another folder") from None


def generated(config: dict) -> dict | None:
    """The arguments of `shapes.ensure`; None where data is not generated."""
    dataset = config["dataset"]
    if "generate" not in dataset or not config["task"].get("reader"):
        return None
    return {"data_dir": dataset["data_dir"], **dataset["generate"]}


def tokenizer(config: dict):
    spec = config["backbone"]
    words = find(spec["tokenizer"]["_target_"])(**tokenizer_files(config), max_length=spec["max_text_len"])
    if words.size > spec["vocabulary_size"]:
        named = f"backbone.vocabulary_size={spec['vocabulary_size']}"
        raise UserError(f"{named}: the tokenizer has {words.size} words; give at least as many")
    return words


def tokenizer_files(config: dict) -> dict[str, Path]:
    from vltune.weights.finding import locate

    return {key: locate(value) for key, value in config["backbone"]["tokenizer"].items() if key != "_target_"}


def open_data(config: dict) -> Data:
    """Raises UserError where a file is missing, before any work."""
    return open_files(config) if config["task"].get("reader") else open_generated(config)


def open_files(config: dict) -> Data:
    from PIL import Image

    from vltune.data.collate import Collate
    from vltune.data.dataset import reader_of
    from vltune.engine.source import Data, TrainingData

    dataset, settings, folder = config["dataset"], config["engine"], data_folder(config)
    words = tokenizer(config)
    decode = dataset.get("decode", "exact")  # as all records were made before there was a choice
    transform = build(config["backbone"]["transform"], randaugment=dataset["randaugment"], decode=decode)
    if transform.randaugment is not None:
        transform(Image.new("RGB", (32, 32)), seed=0)  # a policy that there is not is told before any work
    reader = config["task"] | {"_target_": reader_of(config["task"]["reader"]), "images": dataset["images"]}
    part = training_part(dataset)
    given = {"data_dir": folder, "tokenizer": words, "transform": transform}

    @cache
    def read(name: str) -> Dataset | None:
        more = part if name == "train" else {}  # what is scored is whole
        return build(reader, splits=dataset[name], **given, **more) if dataset[name] else None

    train, collate = read("train"), Collate(words.pad_id, transform.mean, transform.std)
    scored = {*settings["evaluate"]} | ({"val"} if settings["select"] == "best" else set())
    for name in sorted(scored):
        read(name)  # a split that is missing is told before any work
    if part["fraction"] < 1 and len(train) < settings["batch_size"]:
        raise UserError(
            f"dataset.train_fraction={dataset['train_fraction']}: leaves {len(train)} examples, which fill no batch of "
            f"engine.batch_size={settings['batch_size']}; take a larger share or a smaller batch"
        )
    order = settings["batch_size"], config["seed"], settings["workers"]
    return Data(
        training=lambda: TrainingData(
            train, collate, *order, lengths=train.lengths if settings["group_by_length"] else None
        ),
        split=read,
        collate=collate,
        facts=facts(config) | train.facts,
        fingerprint=train.fingerprint,
        eval_batch_size=settings["eval_batch_size"],
    )


def training_part(dataset: dict) -> dict:
    """Which share of the training images is read; records from before there was a choice read all."""
    return {
        "fraction": dataset.get("train_fraction", 1.0),
        "fraction_seed": dataset.get("train_fraction_seed", 0),
    }


def facts(config: dict) -> dict:
    """What a task's head is built from where no data is read, or where the data does not tell."""
    return {"answers": [str(i) for i in range(config["dataset"].get("answers", 0))]}


def open_generated(config: dict) -> Data:
    from vltune.data.shapes.pretraining import PretrainingBatches
    from vltune.engine.source import Data, GeneratedData

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


def numbered(stream, step: int) -> dict:
    batch = stream.batch(step)
    return batch | {"ids": list(range(step * len(batch["image"]), (step + 1) * len(batch["image"])))}
