"""From `+sweep=NAME key=a,b` to runs, each with its overrides and its resolved configuration.

Hydra composes a configuration in some 70 ms.  A sweep of a thousand runs has far fewer choices of configuration files than
runs; each is composed once, and the values that vary beside it (rates, sizes, seeds) are set in what was composed.  So are
the choices of a group that no other file refers to (methods).
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.command_line import check_choices, one_line, resolve
from vltune.data.pool import cores
from vltune.errors import UserError
from vltune.overrides import conf, explained, parse
from vltune.sweep import files

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

FEW = 8  # compositions that are not worth other processes
MOST_RUNS = 20_000
HYDRAS = ("launcher", "sweeper")
SWEEP = "sweep"  # the group of sweeps/


@dataclass(frozen=True)
class Grid:
    """jobs: the overrides of each run, in the order of Hydra's own sweeper.  launcher: the settings of the chosen one."""

    jobs: list[list[str]]
    launcher: dict


def expand(project: Path, arguments: Sequence[str]) -> Grid:
    """The runs that `python run.py -m ARGUMENTS` means.  project: the folder of conf/ and sweeps/."""
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    check_choices(project / "conf", arguments)
    given = parsed(arguments)
    swept = [override for override in given if override.is_sweep_override()]
    if whole := next((o for o in swept if is_hydras(o.key_or_group) or o.key_or_group == SWEEP), None):
        raise UserError(f"{whole.input_line}: one sweep at a time, started in one way; leave all values but one out")
    plain = [o.input_line for o in given if not o.is_sweep_override()]
    with conf(project):
        for override in given:
            if override.key_or_group == SWEEP:
                files.check(project, override.value())
        base = composed(project, plain, return_hydra_config=True)
        launcher, sweeper = (told(lambda name=name: OmegaConf.to_container(base.hydra[name])) for name in HYDRAS)
        params = files.checked_params(sweeper.get("params"), "hydra.sweeper.params")
        own = [o for o in given if not o.is_sweep_override() and not is_hydras(o.key_or_group)]
        choices: dict[str, list[str]] = {}
        for override in [*parsed(f"{key}={value}" for key, value in params.items()), *own, *swept]:
            override.config_loader = GlobalHydra.instance().config_loader()
            key = override.get_key_element()
            choices[key] = [key if value is None else f"{key}={value}" for value in values_of(override)]
            check_choices(project / "conf", choices[key])
    if prod(map(len, choices.values())) > MOST_RUNS:
        raise UserError(
            f"a sweep has {MOST_RUNS:,} runs at most, and this more; is a range too long, a step too short?"
        )
    return Grid([list(job) for job in itertools.product(*choices.values())], launcher)


def values_of(override: Override) -> list[str | None]:
    """As a command line has each; a deletion has None.  UserError where there is none, or where they have no end."""
    if not override.is_sweep_override():
        return [value_of(override)]
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line}: between its ends lies no list of values; use range(...) or choice(...)"
        )
    try:
        values = told(lambda: list(itertools.islice(override.sweep_string_iterator(), MOST_RUNS + 1)))
    except UserError as error:  # a step of 0
        raise UserError(f"{override.input_line}: {error}") from None
    if not values:
        raise UserError(f"{override.input_line}: no value is among these; name one at least")
    return values


def value_of(override: Override) -> str | None:
    """None: the override deletes (`~key`)."""
    return None if override.is_delete() and override.value() is None else override.get_value_element_as_str()


def is_hydras(key: str) -> bool:
    return key == "hydra" or key.startswith(("hydra.", "hydra/"))


def configurations(project: Path, jobs: Sequence[Sequence[str]]) -> list[dict]:
    """The resolved configuration of each run."""
    folder = project / "conf"
    parts: dict[tuple, list[int]] = defaultdict(list)
    variants = [varying(folder, job) for job in jobs]
    for index, (job, variant) in enumerate(zip(jobs, variants, strict=True)):
        set_by_variant = {*variant.choices, *variant.values}
        fixed = tuple(argument for argument in job if argument.partition("=")[0] not in set_by_variant)
        parts[fixed, tuple(variant.choices), tuple(variant.values)].append(index)
    work = [(project, fixed, [variants[index] for index in of]) for (fixed, *_), of in parts.items()]
    found: list[dict] = [{}] * len(jobs)
    for of, resolved in zip(parts.values(), _composed(work), strict=True):
        for index, config in zip(of, resolved, strict=True):
            found[index] = config
    return found


def _composed(work: list[tuple]) -> Iterable[list[dict]]:
    if len(work) <= FEW:
        return list(itertools.starmap(compose_part, work))
    pool = ProcessPoolExecutor(min(len(work) // 2, cores()), get_context("fork"), _end_with, (os.getpid(),))
    try:
        return list(pool.map(compose_part, *zip(*work, strict=True), chunksize=4))
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with(parent: int) -> None:
    """Of a process that composes: it leaves Ctrl-C to its parent, and ends with it, even where that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@dataclass(frozen=True)
class Variant:
    """What can be set in a composed configuration.  choices: {group: a file of it}; values: {key: a plain value}."""

    choices: dict[str, Path]
    values: dict[str, Any]


def varying(folder: Path, job: Sequence[str]) -> Variant:
    given = {override.get_key_element(): override for override in parsed(job)}
    plain = {key: override for key, override in given.items() if is_plain(override)}
    values = {key: o.value() for key, o in plain.items() if not (folder / key).is_dir() and not is_hydras(key)}
    one_of = {"sweep": None, "mode": "train"}  # no other file chooses of these
    one_of |= {key.lstrip("+"): o.value() for key, o in given.items() if key.lstrip("+") in one_of}
    complex_ = [key for key in given if key not in values]
    choices = {
        key: file
        for key, override in plain.items()
        if (file := folder / key / f"{override.value()}.yaml").is_file()
        and stands_alone(folder, key, tuple(one_of.items()))
        and not any(other.lstrip("+~").startswith(f"{key}.") for other in complex_)
        and not OWN_WAY.search(file.read_text())
    }
    return Variant(choices, values)


def is_plain(override: Override) -> bool:
    """`key=value` with a number, a word or null, and no other setting's value in it."""
    added, value = override.is_add() or override.is_delete() or override.is_force_add(), override.value()
    return not added and (value is None or isinstance(value, str | int | float)) and "${" not in str(value)


# In a configuration file: what makes Hydra do more with it than put it in its group's place.
OWN_WAY = re.compile(r"^(# @package|defaults:)", re.MULTILINE)


@cache
def stands_alone(folder: Path, group: str, one_of: tuple[tuple[str, str | None], ...]) -> bool:
    """Whether no other configuration file sets anything in this group or follows from its choice, so that another file of
    it changes its own place alone.  one_of: groups of which one file at most counts, (group, its name)."""
    refers = re.compile(rf"^{group}:|\$\{{{group}\}}|@{group}\b|override /?{group}:", re.MULTILINE)
    others = [file for file in folder.glob("*/*.yaml") if file.parent.name not in (group, *dict(one_of))]
    others += [folder / "run.yaml", *(folder / other / f"{name}.yaml" for other, name in one_of if name)]
    return not any(refers.search(file.read_text()) for file in others)


def compose_part(project: Path, fixed: Sequence[str], variants: Sequence[Variant]) -> list[dict]:
    """The configurations that share the overrides `fixed`; their variants set the same keys."""
    from omegaconf import OmegaConf

    first = [*fixed, *(f"{group}={file.stem}" for group, file in variants[0].choices.items())]
    with conf(project):
        base = composed(project, first)
    read = cache(OmegaConf.load)
    seeds_alone = "${seed" not in OmegaConf.to_yaml(base, resolve=False)
    resolved: dict[str, dict] = {}
    configs = []
    for variant in variants:
        values = {key: value for key, value in variant.values.items() if not (seeds_alone and key == "seed")}
        if (name := repr((variant.choices, values))) not in resolved:
            for group, file in variant.choices.items():
                OmegaConf.update(base, group, read(file), merge=False)
            for key, value in values.items():
                told(set_in, base, key, value, project, first)
            resolved[name] = resolve(base)
        seed = {"seed": variant.values["seed"]} if "seed" in variant.values else {}
        configs.append(resolved[name] | seed)
    return configs


def parsed(arguments: Iterable[str]) -> list[Override]:
    return [parse(argument) for argument in arguments]


def composed(project: Path, overrides: Sequence[str], **more: bool) -> DictConfig:
    """Within `conf`.  UserError that names the override which is wrong."""
    from hydra import compose

    def compose_it() -> DictConfig:
        with explained(project, overrides):
            return compose("run", list(overrides), **more)

    return told(compose_it)


def set_in(base: DictConfig, key: str, value: Any, project: Path, overrides: Sequence[str]) -> None:
    """What `key=value` after the overrides that `base` is composed of would do.  UserError that names it."""
    from omegaconf import OmegaConf

    with explained(project, [*overrides, f"{key}={value}"]):
        OmegaConf.update(base, key, value)


def told(function, *arguments, **more):
    """Its result; what Hydra, and what it is built on, has against what a person wrote is one line."""
    try:
        return function(*arguments, **more)
    except UserError:
        raise
    except Exception as error:
        raise UserError(one_line(error) or type(error).__name__) from error
