"""A run's data: where it lies, how it is made, read and shared out in batches."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
    from vltune.settings.backbone import BackboneSettings
    from vltune.settings.config import RunConfig
    from vltune.settings.dataset import DatasetSettings
    from vltune.settings.task import TaskSettings

HELD_OUT_SEED, HELD_OUT_BATCHES, STEPS_PER_EPOCH = 2**31 - 1, 32, 1000  # of what is generated

NO_FILES = {"padding"}  # settings of a tokenizer that are what they say


def data_folder(dataset: DatasetSettings) -> Path:
    return Path(dataset["data_dir"]) / dataset["subfolder"]


def examples_of(recorded: dict, split: str) -> Examples:
    """What a run's predictions of `val` or `test` are about.  UserError where its data is not on this machine.

    recorded: the configuration in its record, which may be from elsewhere and lack what a run needs."""
    from vltune.data.dataset import open_examples

    dataset, reader = recorded.get("dataset", {}), recorded.get("task", {}).get("reader")
    if reader is None or not {"data_dir", "subfolder"} <= dataset.keys() or not dataset.get(split):
        raise UserError(f"the record's configuration names no data for {split}")
    folder = data_folder(dataset)
    if "generate" in dataset and not folder.exists():
        raise UserError(f"{folder} is not there; any run on it makes it, and the next report shows them")
    return open_examples(reader, folder, dataset[split])


def make_data(dataset: DatasetSettings, task: TaskSettings) -> None:
    """Generates an embedded world on first use; real data must be there already."""
    if spec := generated(dataset, task):
        from vltune.data.shapes import ensure

        try:
            ensure(**spec)
        except OSError as error:
            named = said("dataset.data_dir", spec["data_dir"])
            raise UserError(f"{named}: cannot be written ({error.strerror or error}); name another folder") from None


def generated(dataset: DatasetSettings, task: TaskSettings) -> dict | None:
    """The arguments of `shapes.ensure`; None where data is not generated."""
    if "generate" not in dataset or not task.get("reader"):
        return None
    return {"data_dir": dataset["data_dir"], **dataset["generate"]}


def tokenizer(backbone: BackboneSettings):
    make = find(backbone["tokenizer"]["_target_"])
    plain = {key: backbone["tokenizer"][key] for key in NO_FILES & backbone["tokenizer"].keys()}
    words = make(**tokenizer_files(backbone), **plain, max_length=backbone["max_text_len"])
    if words.size > backbone["vocabulary_size"]:
        named = f"backbone.vocabulary_size={backbone['vocabulary_size']}"
        raise UserError(f"{named}: the tokenizer has {words.size} words; give at least as many")
    return words


def tokenizer_files(backbone: BackboneSettings) -> dict[str, Path]:
    from vltune.weights.finding import locate

    files = backbone["tokenizer"].keys() - NO_FILES - {"_target_"}
    return {key: locate(value) for key, value in backbone["tokenizer"].items() if key in files}


def tokenizer_choices(backbone: BackboneSettings) -> dict[str, str]:
    """Its settings that are what they say, where that is not what is usual (`usual_padding` of its class)."""
    settings, make = backbone["tokenizer"], find(backbone["tokenizer"]["_target_"])
    chosen = {key: settings[key] for key in NO_FILES & settings.keys()}
    return {key: str(value) for key, value in chosen.items() if value != getattr(make, f"usual_{key}")}


def open_data(config: RunConfig) -> Data:
    """Raises UserError where a file is missing, before any work."""
    return open_files(config) if config.task.get("reader") else open_generated(config)


def open_files(config: RunConfig) -> Data:
    from PIL import Image

    from vltune.data.collate import Collate
    from vltune.data.dataset import reader_of
    from vltune.engine.source import Data, TrainingData

    backbone, task, dataset, settings = config.backbone, config.task, config.dataset, config.engine
    words = tokenizer(backbone)
    pixels = {key: dataset[key] for key in ("randaugment", "decode", "augment")}
    transform = build(backbone["transform"], **pixels)
    if transform.randaugment is not None:
        transform(Image.new("RGB", (32, 32)), seed=0)  # a policy that there is not is told before any work
    reader = task | {"_target_": reader_of(task["reader"]), "images": dataset["images"]}
    part = {"fraction": dataset["train_fraction"], "fraction_seed": dataset["train_fraction_seed"]}
    given = {"data_dir": data_folder(dataset), "tokenizer": words, "transform": transform, "draw": config.seed}
    given |= {"own_template": dataset.get("template"), "few_shot_list": dataset["few_shot_list"]}
    given["own_prompts"] = dataset.get("prompts")

    @cache
    def read(name: str) -> Dataset | None:
        more = part if name == "train" else {}  # what is scored is whole
        return build(reader, splits=dataset[name], role=name, **given, **more) if dataset[name] else None

    train, collate = read("train"), Collate(words.pad_id, transform.mean, transform.std)
    scored = {*settings.evaluate} | ({"val"} if settings.select == "best" else set())
    for name in sorted(scored):
        read(name)  # a split that is missing is told before any work
    batch_size = settings.batch_size
    if train.may_be_few:
        together = settings.devices * settings.nodes
        batch_size = min(batch_size, max(1, len(train) // together) * together)
        if left := len(train) - batch_size if len(train) < settings.batch_size else 0:
            told = f"{left} of {len(train)} training images stay out of each epoch, so that {together} share alike"
            print(f"engine.devices: {told}; with one device none does", file=sys.stderr)
    elif part["fraction"] < 1 and len(train) < batch_size:
        raise UserError(
            f"dataset.train_fraction={dataset['train_fraction']}: leaves {len(train)} examples, which fill no batch of "
            f"engine.batch_size={settings.batch_size}; take a larger share or a smaller batch"
        )
    order = batch_size, config.seed, settings.workers
    return Data(
        training=lambda: TrainingData(
            train, collate, *order, lengths=train.lengths if settings.group_by_length else None
        ),
        split=read,
        collate=collate,
        facts=facts(dataset) | train.facts,
        fingerprint=train.fingerprint,
        eval_batch_size=settings.eval_batch_size,
    )


def facts(dataset: DatasetSettings) -> dict:
    """What a task's head is built from where no data is read, or where the data does not tell."""
    numbers = {key: [str(i) for i in range(dataset.get(key, 0))] for key in ("answers", "classes")}
    return numbers | {"templates": [dataset.get("template", "{}")], "noun": "thing", "prompts": []}


def open_generated(config: RunConfig) -> Data:
    from vltune.engine.source import Data, GeneratedData

    backbone, task, settings = config.backbone, config.task, config.engine
    words = tokenizer(backbone)
    generator = find(task["_target_"]).generator
    stream = partial(
        build,
        task | {"_target_": f"vltune.data.shapes.{generator}"},
        tokenizer=words,
        max_text_len=task["caption_tokens"],
        patch_size=backbone["patch_size"],
        steps=settings.total_steps(STEPS_PER_EPOCH),
    )
    training, held_out = (stream(seed=seed, batch_size=settings.batch_size) for seed in (config.seed, HELD_OUT_SEED))
    return Data(
        training=lambda: GeneratedData(
            partial(numbered, training.batch), steps_per_epoch=STEPS_PER_EPOCH, workers=settings.workers
        ),
        split=lambda name: [numbered(held_out.held_out, i) for i in range(HELD_OUT_BATCHES)] if name == "val" else None,
        collate=lambda batches: batches[0],
        facts={"vocabulary_size": words.size, "mask_id": words.mask_id, **training.facts},
        fingerprint="generated",
        eval_batch_size=1,
    )


def numbered(draw: Callable[[int], dict], step: int) -> dict:
    batch = draw(step)
    return batch | {"ids": list(range(step * len(batch["image"]), (step + 1) * len(batch["image"])))}
