"""From a resolved configuration to objects.  The only place that reads both."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.catalogue import KEYS
from vltune.configuration import SPEC, check, find, present
from vltune.errors import UserError
from vltune.values import checked, instead, said

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    from vltune.data.examples import Examples
    from vltune.engine.settings import Settings
    from vltune.engine.source import GeneratedData, TrainingData
    from vltune.model import Model
    from vltune.weights.describe import Choice


def build(spec: dict, **more: Any) -> Any:
    """Calls `_target_` with those of the other keys and of `more` that it takes."""
    make = find(spec["_target_"])
    takes = inspect.signature(make).parameters
    return make(**{key: value for key, value in (spec | more).items() if key in takes})


def build_method(spec: dict):
    """A method takes every key of its configuration, so that a misspelt one is told; `sites_in` is every method's, and
    how it is presented is none of its affair."""
    aside = ("_target_", "name", "sites_in", *KEYS)
    make, given = find(spec["_target_"]), {key: value for key, value in spec.items() if key not in aside}
    known = inspect.signature(make).parameters
    for key in given:
        if key not in known:
            raise UserError(f"method.{key}: {spec['name']} has no such setting; it has {', '.join(known) or 'none'}")
    method = make(**given)
    method.sites_in = spec.get("sites_in", method.sites_in)
    return method


def settings(config: dict) -> Settings:
    """Raises UserError for a value that no run can have."""
    from vltune.engine.settings import Settings

    known, given = [field.name for field in fields(Settings)], config["engine"]
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"engine.{unknown[0]}: there is no such setting; {instead(unknown[0], known)}")
    if lacking := [name for name in known if name not in given]:
        raise UserError(f"engine.{lacking[0]}: is missing; a run needs it")
    return Settings(**given)


def check_values(config: dict) -> None:
    """Raises UserError for a value that no run can have, before anything is read or made; fills in `~` in place."""
    config["engine"] = checked("engine", present(config, "engine"), SPEC)
    settings(config)
    check(config)


def is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def data_folder(config: dict) -> Path:
    return Path(config["dataset"]["data_dir"]) / config["dataset"]["subfolder"]


def examples(config: dict, split: str) -> Examples:
    """What a run's predictions of `val` or `test` are about.  UserError where its data is not on this machine."""
    from vltune.data.examples import open_examples

    dataset = config.get("dataset", {})
    if not {"data_dir", "subfolder"} <= dataset.keys() or not dataset.get(split):
        raise UserError(f"the record's configuration names no data for {split}")
    folder = data_folder(config)
    if "generate" in dataset and not folder.exists():
        raise UserError(f"{folder} is not there; any run on it makes it, and the next report shows them")
    return open_examples(config["task"]["name"], folder, dataset[split])


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
    from PIL import Image

    from vltune.data.collate import Collate
    from vltune.engine.source import TrainingData

    dataset, settings, folder = config["dataset"], config["engine"], data_folder(config)
    words = tokenizer(config)
    decode = dataset.get("decode", "exact")  # as all records were made before there was a choice
    transform = build(config["backbone"]["transform"], randaugment=dataset["randaugment"], decode=decode)
    if transform.randaugment is not None:
        transform(Image.new("RGB", (32, 32)), seed=0)  # a policy that there is not is told before any work
    reader = config["task"] | {"_target_": config["task"]["reader"], "images": dataset["images"]}
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
    from vltune.model import Model

    backbone = build(config["backbone"])
    task = build(config["task"], in_width=backbone.pooled_width, width=backbone.width, **facts)
    if pretrained:
        load(config, backbone, task)
    return Model(backbone, task, build_method(config["method"]))


def build_shapes(config: dict) -> Model:
    """The model without its method, on the meta device: shapes without numbers, built in a fraction of a second."""
    import torch

    with torch.device("meta"):
        return build_model(config | {"method": {"_target_": "vltune.tuning.Method"}}, facts(config), pretrained=False)


def protocol(config: dict, model: Model) -> dict[str, Tensor]:
    """One example of the sizes that the backbone's costs are counted on."""
    from vltune.costs import macs

    spec, sizes = config["backbone"], config["backbone"]["protocol"]
    return macs.example(sizes["text_len"], sizes["image"], spec["vocabulary_size"], model.task.images)


def weight_files(config: dict) -> dict[str, Path]:
    """The files of pretrained weights that the configuration names: of the whole `backbone`, or of single towers."""
    from vltune.weights.finding import find as find_file

    towers = config["backbone"].get("tower_weights") or {}
    if not isinstance(towers, dict) or not towers.keys() <= {"image", "text"}:
        fix = "must be {image: FILE, text: FILE}, or one of them, or null"
        raise UserError(f"backbone.tower_weights={towers}: {fix}")
    if config["weights"] is not None and any(name is not None for name in towers.values()):
        raise UserError(
            f"weights={config['weights']}: would replace backbone.tower_weights; give weights=null with them"
        )
    named = {f"backbone.tower_weights.{part}": (part, name, None) for part, name in towers.items()}
    named["weights"] = ("backbone", config["weights"], config["backbone"].get("weights_from"))
    return {
        part: find_file(name, source, setting) for setting, (part, name, source) in named.items() if name is not None
    }


def fingerprints(config: dict, data: str) -> dict:
    """Of what files hold, as a run's identity has it; weights are empty where they are random.  data: the data's own."""
    return {
        "weights": fingerprints_of(weight_files(config)),
        "tokenizer": fingerprints_of(tokenizer_files(config)),
        "data": data,
    }


def fingerprints_of(files: dict[str, Path]) -> dict[str, str]:
    """UserError where one is missing."""
    from vltune.weights.finding import fingerprint

    if missing := [f"{path} ({part})" for part, path in files.items() if not path.is_file()]:
        raise UserError(f"{', '.join(missing)}: no such file")
    return {part: fingerprint(path) for part, path in files.items()}


def load(config: dict, backbone, task) -> None:
    from vltune.weights.backbones import load_backbone
    from vltune.weights.heads import start_from_matching
    from vltune.weights.keys import MisfitError
    from vltune.weights.towers import load_image_tower, load_text_tower

    if not (files := weight_files(config)):
        return
    cls_id = tokenizer(config).cls_id
    for part, load_tower in (("text", load_text_tower), ("image", load_image_tower)):
        if part in files:
            load_tower(getattr(backbone, part), files[part])
    if "backbone" in files:
        try:
            load_backbone(backbone, files["backbone"], cls_id, f"backbone={config['backbone']['name']}")
        except MisfitError as error:
            raise UserError(f"{error}; {advice(files['backbone'], config['task']['name'])}") from None
        if config["task"].get("start") == "matching":
            start_from_matching(task, files["backbone"])
    else:
        backbone.start_class_token(cls_id)


CONF = Path("conf")  # where the commands of the documentation are typed


def advice(weights: Path, task: str) -> str:
    """What to do about a checkpoint of another backbone."""
    from vltune.weights.describe import fitting, inspect

    suited = [choice for choice in backbones(CONF) if task in choice.tasks]
    if fits := [choice.overrides for choice, matched in fitting(inspect(weights), suited) if not matched.problems]:
        return f"use {' or '.join(fits)} as it stands"
    return f"`vltune weights {weights}` tells what it is"


def backbones(conf: Path) -> list[Choice]:
    """The backbones of a folder of configurations, each as it stands for its tasks and with its other image towers."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from vltune.weights.describe import Choice

    tasks = defaultdict(list)
    for file in sorted(conf.glob("task/*.yaml")):
        task = group(file)
        if "reader" in task:
            tasks[task["token_types"]].append(task["name"])
    choices = []
    for file in sorted(conf.glob("backbone/*.yaml")):
        spec = group(file)
        for token_types, names in sorted(tasks.items()):
            standing = spec.get("image_tower")
            for tower in spec.get("image_towers", [standing]):
                chosen = {"backbone": {**spec, "image_tower": tower}, "task": {"token_types": token_types}}
                try:
                    resolved = OmegaConf.to_container(OmegaConf.create(chosen), resolve=True)["backbone"]
                except OmegaConfBaseException as error:
                    reason = str(error).splitlines()[0]
                    raise UserError(f"{file}: {reason}; it may refer to backbone and task.token_types alone") from None
                other = "" if tower == standing else f" backbone.image_tower={tower}"
                overrides = f"backbone={file.stem}{other}"
                choices.append(Choice(overrides, not other, tuple(names), partial(build, resolved)))
    return choices


def group(file: Path) -> dict:
    """What a configuration file chooses for its group, unresolved."""
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.load(file))
    return content.get(file.parent.name, content)
