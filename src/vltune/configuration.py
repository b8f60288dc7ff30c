"""Whether a run can have its configuration: every value of its type, all that is needed, nothing else; before all else.

`vltune.settings` declares what a run's settings are; constructors declare the arguments that they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from typing_extensions import NotRequired, TypedDict

from vltune.data.dataset import reader_of
from vltune.data.shapes.layouts import LAYOUTS
from vltune.errors import UserError
from vltune.settings.arguments import ARGUMENTS
from vltune.settings.check import bare, checked, declared, present
from vltune.settings.groups import BUILT, GROUPS
from vltune.settings.run import RunSettings
from vltune.values import place, said

# What constructors are given by the run, not by the configuration; a task also what its data's reader `gives`.
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
    "role",
    "draw",
    "own_template",
    "few_shot_list",
    "own_prompts",
}
GIVEN = {
    "task": READ | {"in_width", "width", "vocabulary_size", "mask_id", "attributes"},
    "logger": {"otherwise"},
    "backbone.tokenizer": {"max_length"},
    "backbone.transform": {"randaugment", "decode", "augment", "crop"},
}


def check(config: dict) -> None:
    """Raises UserError for a value that no run can have, before anything is read or made; fills in `~` in place.

    What constructors declare is not looked at, which means importing them: see `check_constructors`."""
    dataset = config["dataset"] = checked("dataset", present(config, "dataset"), GROUPS["dataset"])
    if below := dataset["subfolder"]:  # a path too, from data_dir on
        dataset["subfolder"] = place("dataset.subfolder", below)
        place("dataset.subfolder", str(Path(dataset["data_dir"], dataset["subfolder"])), folder=True)
    if config.get("match") is not None:
        config["match"] = checked("match", config["match"], GROUPS["match"])
    for group in BUILT:
        config[group] = checked(group, present(config, group), GROUPS[group])
    for name, kind in declared(RunSettings).items():  # last: `weights` follows from the backbone's
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
    if (layout := LAYOUTS.get(generate.get("layout"))) is not None:
        for name in generate.keys() - {"layout", "seed", "images", *layout.settings}:
            raise UserError(f"dataset.generate.{name}: {generate['layout']} has no such setting; leave it out")
    if task.get("reader") and config["engine"].get("select") == "best" and not dataset["val"]:
        raise UserError("engine.select=best: there is no validation split; name some in dataset.val")


def check_constructors(config: dict) -> None:
    """`check` of what the constructors of method, backbone, task, tokenizer, transform and logger declare."""
    for group in BUILT:
        check_spec(group, config[group], group)
    for part in ("backbone.tokenizer", "backbone.transform"):
        check_spec(part, config["backbone"][part.partition(".")[2]], part)
    if config.get("match") is not None:
        check_method("match.reference", config["match"]["reference"])
    for name, each in config["method"].get("methods", {}).items():
        check_method(f"method.methods.{name}", each, name)


def check_method(where: str, spec: dict, name: str | None = None) -> None:
    """One beside the configured one, or in it: of a stack, under a name."""
    named = spec if name is None else {"name": name} | spec
    check_spec(where, named, "method")
    spec.update(named)
    for other, each in spec.get("methods", {}).items():
        check_method(f"{where}.methods.{other}", each, other)


def check_spec(where: str, spec: dict, group: str) -> None:
    """The settings of one object against its constructor, and its data's reader where it names one."""
    table = accepted(group, *targets(where, spec))
    spec |= checked(where, {key: value for key, value in spec.items() if key not in ("_target_", "reader")}, table)
    for name in declared(table):
        if name not in spec and name not in declared(GROUPS.get(group)):
            raise UserError(f"{where}.{name}: is missing; {where} needs it")
    if "heads" in spec and spec["width"] % spec["heads"]:
        raise UserError(f"{where}.heads={spec['heads']}: must divide {where}.width={spec['width']}")


def targets(where: str, spec: dict) -> list[str]:
    """Dotted names of what a specification is about: its data's reader, where it names one, and what it builds."""
    found = []
    for key in ("reader", "_target_"):
        if spec.get(key) is not None or key == "_target_":
            name = checked(f"{where}.{key}", present(spec, key, f"{where}."), str)
            try:
                name = reader_of(name) if key == "reader" else name
                find(name)
            except UserError as error:
                raise UserError(f"{where}.{key}={error}") from None
            found.append(name)
    return found


@cache
def accepted(group: str, *targets: str) -> Any:
    """A class of the settings that a group, or a part of one, may have beside what dotted names build of them."""
    own, without = declared(GROUPS.get(group)), given(group, targets)
    taken = {name: kind for target in targets for name, kind in parameters(target).items() if name not in without}
    arguments = {name: NotRequired[argument(group, name, kind)] for name, kind in taken.items() if name not in own}
    return TypedDict("Accepted", arguments | {name: kind for name, kind in own.items() if name != "reader"})


def given(group: str, targets: Sequence[str]) -> set[str]:
    """Arguments that the run has, not the configuration."""
    return GIVEN.get(group, set()).union(*(getattr(find(target), "gives", ()) for target in targets))


@cache
def parameters(target: str) -> dict[str, Any]:
    """{parameter: its type} of what a dotted name builds; Any where none is told."""
    make = find(target)
    hints = get_type_hints(make.__init__ if inspect.isclass(make) else make, include_extras=True)
    signature = inspect.signature(make).parameters.values()
    named = [each.name for each in signature if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return {name: hints.get(name, Any) for name in named}


def argument(group: str, name: str, kind: Any) -> Any:
    """The type of a constructor's argument: what it says in `Annotated`, or what is declared of this name, or its own."""
    known = declared(ARGUMENTS.get(group)).get(name, Any)
    return kind if bare(known)[0] is Any or bare(kind)[1] else known


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
