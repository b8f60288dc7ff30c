"""Everything about a configuration that can be told before anything is read, made or started."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from vltune.assemble.adopt import adopted
from vltune.assemble.factory import build, check_values
from vltune.assemble.match import sized
from vltune.command_line import resolve
from vltune.configuration import check_constructors, find
from vltune.engine import kernels
from vltune.engine.precision import settle
from vltune.errors import UserError
from vltune.experiment.rehearsal import blame, rehearse
from vltune.settings.check import declared
from vltune.settings.config import RunConfig
from vltune.settings.groups import GROUPS
from vltune.settings.run import RunSettings
from vltune.values import instead, key_of, said, shown

if TYPE_CHECKING:
    from omegaconf import DictConfig

KNOWN = [*declared(RunSettings), *GROUPS, "rates", "hydra"]
PATIENCE = 0.01, 0.02, 0.05, 0.1, 0.2  # seconds at most between looks at a folder that others make too


def ready(composed: DictConfig, overrides: Sequence[str]) -> RunConfig:
    """The configuration of a run, resolved, every value of it one that a run can have.  UserError else, which names it.

    overrides: what the user typed."""
    resolved = resolve(composed)
    check_values(resolved)
    if resolved["mode"] != "eval":  # where the record says it
        kernels.choose(**{name: resolved["engine"][name] for name in kernels.SETTINGS})
    config = built(settle(resolved), overrides)
    if config.mode != "eval":
        check_writable("results_dir", config.results_dir)
    return config


def check_jobs(jobs: Sequence[Sequence[str]], configs: Sequence[dict]) -> list[dict]:
    """The same of a sweep's runs, whose values are checked: what each is built of, or UserError before one starts."""
    groups = ("mode", "method", "backbone", "task", "match", "dataset", "engine", "logger")
    done: dict[str, dict] = {}
    for job, config in zip(jobs, configs, strict=True):
        alike = json.dumps({group: config.get(group) for group in (*groups, "weights")})
        if alike not in done:
            found = built(config, job).plain
            done[alike] = {group: found[group] for group in groups if group in found}
        config.update(done[alike])
    return list(configs)


def built(resolved: dict, overrides: Sequence[str]) -> RunConfig:
    """The parts of a configuration whose values are checked, with all that is solved for it: a model can be built of
    them."""
    check_added(overrides)
    if resolved["mode"] == "eval":  # the record's configuration is what counts
        return RunConfig.of(resolved)
    check_constructors(resolved)
    config = RunConfig.of(resolved)
    check_mode(config, overrides)
    with blame(overrides):
        find(config.task["_target_"]).check_backbone(find(config.backbone["_target_"]))
        config = sized(adopted(config, overrides), overrides)
    rehearse(config, overrides)
    return config


def check_mode(config: RunConfig, overrides: Sequence[str]) -> None:
    """What a mode leaves no choice about, and what does not go together in it."""
    from vltune.engine.order import accumulation_steps

    engine = config.engine
    if config.mode == "pretrain":
        check_pretraining(config, overrides)
    parts = engine.devices * engine.nodes > 1 or (engine.micro_batch_size or engine.batch_size) < engine.batch_size
    if config.mode == "train" and parts and find(config.task["_target_"]).whole_batches:
        said = f"engine.micro_batch_size, engine.devices and engine.nodes: task={config.task['name']}"
        raise UserError(f"{said} tells each pair from all others of its batch, a whole on one device; leave them out")
    check_read(config, overrides)
    build(config.logger)  # it looks at its settings
    if config.mode in ("train", "pretrain"):
        accumulation_steps(engine.batch_size, engine.micro_batch_size, engine.devices * engine.nodes)
    if config.mode == "cost" and (chosen := [each for each in overrides if each.startswith("logger")]):
        raise UserError(f"{shown(chosen[0])}: mode=cost logs nothing; leave it out")


def check_pretraining(config: RunConfig, overrides: Sequence[str]) -> None:
    engine = config.engine
    if not find(config.method["_target_"]).tunes_backbone:
        raise UserError(f"method={config.method['name']}: mode=pretrain trains the whole backbone; leave it out")
    if engine.group_by_length:
        raise UserError("engine.group_by_length=true: mode=pretrain draws each batch as a whole; leave it out")
    if engine.eval_examples is not None:
        said = f"engine.eval_examples={engine.eval_examples}"
        raise UserError(f"{said}: mode=pretrain scores batches as a whole, as many as it draws; leave it out")
    if engine.micro_batch_size is not None or engine.devices * engine.nodes > 1:
        said = "engine.micro_batch_size, engine.devices and engine.nodes"
        raise UserError(f"{said}: mode=pretrain draws each batch as a whole, on one device; leave them out")
    tokens, room = config.task.get("caption_tokens", 0), config.backbone["max_text_len"]
    if tokens > room:
        raise UserError(f"task.caption_tokens={tokens}: backbone.max_text_len={room} holds fewer; lower it")
    idle = [shown(each) for each in overrides if is_of_data(each)]
    if "generate" not in config.dataset:
        idle.insert(0, f"dataset={config.dataset['name']}")
    if idle:
        raise UserError(f"{idle[0]}: mode=pretrain draws its own pictures and texts, of shapes; leave it out")


def is_of_data(override: str) -> bool:
    """Whether it is a setting of a data set that decides what is read of it."""
    name = key_of(override)
    return name.startswith("dataset.") and name not in ("dataset.data_dir", "dataset.max_bad_examples")


def check_read(config: RunConfig, overrides: Sequence[str]) -> None:
    """UserError where a setting is typed in vain, as another decides in its place: it would name another run, the same."""
    decided = deciding(config)
    for override in overrides:
        is_idle, by, other = decided.get(key_of(override), (False, "", ""))
        if is_idle:
            raise UserError(
                f"{shown(override)}: {by} decides in its place; add {by.partition('=')[0]}={other}, or leave it out"
            )


def deciding(config: RunConfig) -> dict[str, tuple[bool, str, str]]:
    """{setting: whether it counts for nothing, what decides in its place, and a value of that at which it counts}"""
    from vltune.data.labelled.shots import OF_FEW

    engine, task, share = config.engine, config.task, config.dataset.get("train_fraction", 1.0)
    classifier, protocol = task.get("classifier", "cache"), task.get("protocol", OF_FEW[0])
    of_cache = (classifier != "cache", f"task.classifier={classifier}", "cache")
    of_texts = (classifier == "linear", f"task.classifier={classifier}", "linear_from_text")  # that alone reads none
    of_names = (task.get("template") == "name", f"task.template={task.get('template')}", "own")
    timed = engine.max_steps == task.get("steps", {}).get(f"of_{task.get('shots')}", 0)  # as a recipe may have it
    of_method = {
        f"method.{name}": (config.method.get(by) != value, f"method.{by}={config.method.get(by)}", value or "null")
        for name, (by, value) in find(config.method["_target_"]).counts_with.items()
    }
    return of_method | {
        "dataset.template": of_texts if of_texts[0] else of_names,
        "dataset.train_fraction_seed": (share == 1, f"dataset.train_fraction={share:g}", "0.1"),
        "engine.epochs": (engine.max_steps is not None, f"engine.max_steps={engine.max_steps}", "null"),
        "engine.head_lr_multiplier": (engine.head_lr is not None, f"engine.head_lr={engine.head_lr}", "null"),
        "engine.val_every": (engine.select != "best", f"engine.select={engine.select}", "best"),
        "task.alpha": of_cache,
        "task.beta": of_cache,
        "task.cache_trained": of_cache,
        "task.template": of_texts,
        "task.shots": (protocol not in OF_FEW and not timed, f"task.protocol={protocol}", OF_FEW[0]),
    }


def check_added(overrides: Sequence[str]) -> None:
    """`+key=value` adds a setting, which none reads where its name is not one of a run's.

    One that others refer to as `${key}` is a help in typing."""
    for override in overrides:
        key = key_of(override)
        name = key.rpartition("@")[2].partition(".")[0]
        known = name in (*KNOWN, "sweep") or any(f"${{{name}" in other for other in overrides)
        if override.startswith("+") and not known:
            raise UserError(f"{shown(override)}: there is no such setting; {instead(name, KNOWN)}")


def check_writable(setting: str, folder: Path) -> None:
    """UserError that names the setting, where no file can be made in a folder; it is left as it was."""
    for pause in (*PATIENCE, None):
        try:
            write_in(folder)
            return
        except OSError as error:
            file, is_met = Path(error.filename), isinstance(error, FileExistsError)
            if is_met and (file.is_file() or (file.is_symlink() and not file.exists())):
                raise UserError(f"{said(setting, folder)}: {file} is a file; name a folder") from None
            if pause is None or not (is_met or isinstance(error, FileNotFoundError)):
                reason = error.strerror or error
                raise UserError(f"{said(setting, folder)}: cannot be written ({reason}); name another folder") from None
            time.sleep(pause * Random().random())  # another process made a folder of these meanwhile, or removed it


def write_in(folder: Path) -> None:
    """Makes a file there and removes it, with the folders that it took."""
    made: list[Path] = []
    try:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            missing.mkdir()
            made.append(missing)
        probe = folder / f".writable.{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    finally:
        for each in reversed(made):
            with suppress(OSError):  # another process uses it by now
                each.rmdir()
