"""What a run's configuration may hold: declared here, or by the constructor that takes it; checked before all else."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from vltune.catalogue import COLOURS
from vltune.errors import UserError
from vltune.values import Count, Each, Folder, Maybe, Name, Positive, Range, Share, Words, checked, instead, place, said

LARGEST, DEEPEST, PIXELS = 1_000_000, 1000, 4096  # beyond which no memory reaches, or no patience
Size = Annotated[int, Range(1, LARGEST)]
Layers = Annotated[int, Range(1, DEEPEST)]
Pixels = Annotated[int, Range(1, PIXELS)]
Names = Annotated[Sequence[str], Words()]
AnyNames = Annotated[Sequence[str], Words(empty=True)]
SPEC = Each(Any)  # of an object, whose constructor says what it takes

RUN = {
    "seed": Annotated[int, Range(0, 2**32 - 1)],
    "weights": Path | None,
    "results_dir": Folder,
    "force": bool,
    "busy": Literal["wait", "leave"],
    "sweep": Name | None,
    "from": Path | None,
    "mode": Literal["train", "pretrain", "eval", "cost"],
}
DATASET = {
    "name": Name,
    "data_dir": Folder,
    "subfolder": str,
    "train": AnyNames,
    "val": AnyNames,
    "test": AnyNames,
    "images": Literal["true", "shuffled"],
    "randaugment": str | None,
    "max_bad_examples": Annotated[int, Range(0)],
    # Records from before there was a choice lack these.
    "train_fraction": Maybe(Annotated[float, Range(above=0, most=1)]),
    "train_fraction_seed": Maybe(Annotated[int, Range(0)]),
    "decode": Maybe(Literal["exact", "fast"]),
    # Not every data set has these.
    "answers": Maybe(Size),
    "folds": Maybe(Count),
    "make": Maybe(str),
    "generate": Maybe(
        {
            "layout": Maybe(Name),
            "seed": Maybe(Annotated[int, Range(0)]),
            "questions_per_image": Maybe(Count),
            "images": Maybe(
                {split: Annotated[int, Range(1, LARGEST)] for split in ("train", "val", "test")}, null=True
            ),
        }
    ),
}
MATCH = {
    "by": Literal["params", "macs"],
    "budget": Positive | None,
    "reference": SPEC,
    "reached": Maybe(Count),
}
TOWER = {
    "kind": Maybe(str),
    "model": Maybe(str),
    "layers": Maybe(Layers),
    "first_position": Maybe(Annotated[int, Range(0)]),
    "activation": Maybe(str),
    "dropout": Maybe(Share),
    "eps": Maybe(Positive),
} | dict.fromkeys(
    ("width", "heads", "hidden", "vocabulary_size", "positions", "segments", "patch_size", "image_size"), Maybe(Size)
)
GROUPS = {
    "method": {
        "name": Name,
        "sites_in": Maybe(str),
        "methods": Maybe(Each(SPEC)),
        "always_trained": Maybe(Literal["paper", "head_only"]),
        # catalogue.KEYS
        "label": Maybe(str),
        "order": Maybe(int | None),
        "families": Maybe(AnyNames),
        "colour": Maybe(Annotated[int, Range(0, COLOURS - 1)] | None),
        "rates": Maybe(Each(Positive)),
    },
    "backbone": {
        "name": Name,
        "image_size": Maybe(Size),
        "patch_size": Maybe(Size),
        "vocabulary_size": Size,
        "max_text_len": Annotated[int, Range(3, LARGEST)],
        "weights": Path | None,
        "weights_from": Maybe(str | None),
        "tower_weights": Maybe({"text": Maybe(Path | None), "image": Maybe(Path | None)}, null=True),
        "tokenizer": SPEC,
        "transform": SPEC,
        "pixels": Maybe(Each(Any)),
        "sizes": Maybe(Each(Size)),
        "place": Maybe(str),
        "protocol": {"text_len": Size, "image": tuple[Pixels, Pixels]},
        "text_tower": Maybe(TOWER),
        "image_towers": Maybe(Each(TOWER)),
    },
    "task": {
        "name": Name,
        "reader": Maybe(str | None),
        "token_types": Size,
        "layout": Maybe(Name),
        "splits": Maybe(dict.fromkeys(("train", "val", "test"), AnyNames)),
        "caption_tokens": Maybe(Annotated[int, Range(3, 1000)]),
    },
    "logger": {},
}
# Of constructors' parameters, by name: the range of a number, or a type that is narrower than the declared one.
LIMITS: dict[str, Any] = {
    **dict.fromkeys(("width", "heads", "hidden", "patch_size", "image_size", "vocabulary_size"), Range(1, LARGEST)),
    **dict.fromkeys(("shorter", "longer", "multiple", "size"), Range(1, PIXELS)),
    **dict.fromkeys(("token_types", "false_captions"), Range(1, LARGEST)),
    **dict.fromkeys(("init_std", "prompt_std", "map_std", "init_bound", "bag_weight"), Range(0)),
    **dict.fromkeys(("examples", "largest_artifact_mb"), Range(0)),
    **dict.fromkeys(("start_timeout", "finish_timeout"), Range(0, 86_400)),
    "mean": tuple[float, float, float],
    "std": tuple[Positive, Positive, Positive],
    "layers": Range(1, DEEPEST),
    "max_text_len": Range(3, LARGEST),
    "max_image_len": Literal[-1] | Size,
    "folds": Range(1),
    "dropout": Range(0, below=1),
    "mask_rate": Range(0, 1),
}
# What constructors are given by the run, not by the configuration.
READ = {
    "data_dir",
    "splits",
    "tokenizer",
    "transform",
    "images",
    "seed",
    "image_cache_bytes",
    "fraction",
    "fraction_seed",
}
GIVEN = {
    "task": READ | {"in_width", "width", "answers", "vocabulary_size", "mask_id", "attributes"},
    "logger": {"otherwise"},
    "backbone.tokenizer": {"max_length"},
    "backbone.transform": {"randaugment", "decode", "crop"},
}


def check(config: dict) -> None:
    """Raises UserError for a value that no run can have, before anything is read or made; fills in `~` in place.

    What constructors declare is not looked at, which means importing them: see `check_constructors`."""
    dataset = config["dataset"] = checked("dataset", present(config, "dataset"), DATASET)
    if below := dataset["subfolder"]:  # a path too, from data_dir on
        dataset["subfolder"] = place("dataset.subfolder", below)
        place("dataset.subfolder", str(Path(dataset["data_dir"], dataset["subfolder"])), folder=True)
    if config.get("match") is not None:
        config["match"] = checked("match", config["match"], MATCH)
    for group, table in GROUPS.items():
        spec = config[group] = checked(group, present(config, group), SPEC)
        for name, kind in table.items():
            if name in spec or not isinstance(kind, Maybe):
                spec[name] = checked(f"{group}.{name}", present(spec, name, f"{group}."), kind)
    for name, kind in RUN.items():  # last: `weights` follows from the backbone's
        config[name] = checked(name, present(config, name), kind)
    check_together(config)


def check_together(config: dict) -> None:
    """Settings that are right one by one, and not together."""
    task, dataset = config["task"], config["dataset"]
    if config["mode"] == "pretrain" and task.get("reader"):
        raise UserError(f"task={task['name']}: mode=pretrain trains on generated pairs, with task=pretraining")
    if config["mode"] != "pretrain" and not task.get("reader"):
        raise UserError(f"task={task['name']}: reads no data (task.reader), which mode=pretrain alone does without")
    if config["from"] is None and config["mode"] == "eval":
        raise UserError("mode=eval: say which record, from=results/records/.../NAME.json")
    if config["from"] is not None and config["mode"] != "eval":
        raise UserError(f"{said('from', config['from'])}: only mode=eval reads a record; add that, or leave this out")
    if task.get("reader") and not dataset["train"]:
        raise UserError("dataset.train=[]: there is nothing to train on; name splits")
    generate = dataset.get("generate", {})
    if "questions_per_image" in generate and generate.get("layout", "vqav2") != "vqav2":
        raise UserError(f"dataset.generate.questions_per_image: {generate['layout']} has no such setting; leave it out")
    if task.get("reader") and config["engine"].get("select") == "best" and not dataset["val"]:
        raise UserError("engine.select=best: there is no validation split; name some in dataset.val")


def present(settings: dict, name: str, where: str = "") -> Any:
    if name not in settings:
        raise UserError(f"{where}{name}: is missing; a run needs it")
    return settings[name]


def check_constructors(config: dict) -> None:
    """`check` of what the constructors of method, backbone, task, tokenizer, transform and logger declare."""
    for group, table in GROUPS.items():
        check_spec(group, config[group], table)
    for part in ("tokenizer", "transform"):
        check_spec(f"backbone.{part}", config["backbone"][part], {})
    if config.get("match") is not None:
        check_method("match.reference", config["match"]["reference"])
    check_stack("method", config["method"])


def check_method(where: str, spec: dict) -> None:
    """One beside the configured one, or in it."""
    for name in GROUPS["method"].keys() & spec.keys():
        spec[name] = checked(f"{where}.{name}", spec[name], GROUPS["method"][name])
    check_spec(where, spec, GROUPS["method"])
    check_stack(where, spec)


def check_stack(where: str, spec: dict) -> None:
    for name, each in spec.get("methods", {}).items():
        check_method(f"{where}.methods.{name}", each)


def check_spec(where: str, spec: dict, table: Mapping[str, Any]) -> None:
    """The settings of one object against its constructor, and its data's reader where it names one.

    table: what is not the constructor's affair."""
    taken, given = {}, GIVEN.get(where, set())
    for key in ("reader", "_target_"):
        if spec.get(key) is not None or key == "_target_":
            target = checked(f"{where}.{key}", present(spec, key, f"{where}."), str)
            try:
                taken |= declared(target)
            except UserError as error:
                raise UserError(f"{where}.{key}={error}") from None
    for name, value in spec.items():
        if name in table or name in ("_target_", "reader"):
            continue
        if name not in taken or name in given:
            known = [*(each for each in taken if each not in given), *(each for each in table if each != "reader")]
            raise UserError(f"{where}.{name}: there is no such setting; {instead(name, dict.fromkeys(known))}")
        spec[name] = checked(f"{where}.{name}", value, narrowed(name, taken[name]))
    if lacking := [name for name in taken if name not in spec and name not in given]:
        raise UserError(f"{where}.{lacking[0]}: is missing; {where} needs it")
    if "heads" in spec and spec["width"] % spec["heads"]:
        raise UserError(f"{where}.heads={spec['heads']}: must divide {where}.width={spec['width']}")


@cache
def declared(target: str) -> dict[str, Any]:
    """{parameter: its type} of what a dotted name builds; Any where none is told."""
    make = find(target)
    hints = get_type_hints(make.__init__ if inspect.isclass(make) else make, include_extras=True)
    parameters = inspect.signature(make).parameters.values()
    named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return {name: hints.get(name, Any) for name in named}


def narrowed(name: str, kind: Any) -> Any:
    """The type with the limits of its name."""
    if not isinstance(limit := LIMITS.get(name), Range):
        return limit or kind
    members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return Union[tuple(Annotated[each, limit] if each in (int, float) else each for each in members)]  # noqa: UP007


def find(target: str) -> Callable:
    """The object that a dotted name of vltune's own means; a record from elsewhere may name nothing else."""
    module, _, name = target.rpartition(".")
    if not module.startswith("vltune."):
        raise UserError(f"{target}: a configuration may only name what is in vltune")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise UserError(f"{target}: no such thing in vltune") from None
    if not callable(found):
        raise UserError(f"{target}: builds nothing")
    return found
