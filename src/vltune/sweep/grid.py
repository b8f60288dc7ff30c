"""From `+sweep=NAME key=a,b` to runs, each with its overrides and its resolved configuration.

Hydra composes a configuration in some 70 ms.  A sweep of a thousand runs has far fewer choices of configuration files than
runs; each is composed once, and the values that vary beside it (rates, sizes, seeds) are set in what was composed.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.entry import check_choices, is_users, one_line, resolve
from vltune.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

FEW = 8  # compositions that are not worth other processes


@dataclass(frozen=True)
class Grid:
    """jobs: the overrides of each run, in the order of Hydra's own sweeper.  launcher: the settings of the chosen one."""

    jobs: list[list[str]]
    launcher: dict


def expand(project: Path, arguments: Sequence[str]) -> Grid:
    """The runs that `python run.py -m ARGUMENTS` means.  project: the folder of conf/ and sweeps/."""
    from hydra import compose
    from omegaconf import OmegaConf

    check_choices(project / "conf", arguments)
    given = parsed(arguments)
    swept = [override for override in given if override.is_sweep_override()]
    plain = [o.input_line for o in given if not o.is_sweep_override()]
    with conf(project):
        base = told(compose, "run", plain, return_hydra_config=True)
        launcher = OmegaConf.to_container(base.hydra.launcher)
        params = OmegaConf.to_container(base.hydra.sweeper).get("params") or {}
    own = [o for o in given if not o.is_sweep_override() and not is_hydras(o.key_or_group)]
    choices: dict[str, list[str]] = {}
    for override in [*parsed(f"{key}={value}" for key, value in params.items()), *own, *swept]:
        key = override.get_key_element()
        values = override.sweep_string_iterator() if override.is_sweep_override() else [value_of(override)]
        choices[key] = [key if value is None else f"{key}={value}" for value in values]
    return Grid([list(job) for job in itertools.product(*choices.values())], launcher)


def value_of(override: Override) -> str | None:
    """None: the override deletes (`~key`)."""
    return None if override.is_delete() and override.value() is None else override.get_value_element_as_str()


def is_hydras(key: str) -> bool:
    return key == "hydra" or key.startswith(("hydra.", "hydra/"))


def configurations(project: Path, jobs: Sequence[Sequence[str]]) -> list[dict]:
    """The resolved configuration of each run."""
    folder = project / "conf"
    parts: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, job in enumerate(jobs):
        parts[tuple(argument for argument in job if not is_value(folder, argument))].append(index)
    work = [(project, fixed, [values(folder, jobs[i]) for i in of]) for fixed, of in parts.items()]
    found: list[dict] = [{}] * len(jobs)
    for of, resolved in zip(parts.values(), _composed(work), strict=True):
        for index, config in zip(of, resolved, strict=True):
            found[index] = config
    return found


def _composed(work: list[tuple]) -> Iterable[list[dict]]:
    if len(work) <= FEW:
        return list(itertools.starmap(compose_part, work))
    processes = min(len(work) // 2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        return list(pool.map(compose_part, *zip(*work, strict=True), chunksize=4))


def compose_part(project: Path, fixed: Sequence[str], variants: Sequence[dict]) -> list[dict]:
    """The configurations that share the overrides `fixed` and differ in plain values."""
    from hydra import compose
    from omegaconf import OmegaConf

    with conf(project):
        base = told(compose, "run", [*fixed])
    seeds_alone = "${seed" not in OmegaConf.to_yaml(base, resolve=False)
    resolved: dict[str, dict] = {}
    configs = []
    for variant in variants:
        rest = {key: value for key, value in variant.items() if not (seeds_alone and key == "seed")}
        if (name := repr(rest)) not in resolved:
            for key, value in rest.items():
                told(OmegaConf.update, base, key, value)
            resolved[name] = resolve(base)
        configs.append(resolved[name] | ({"seed": variant["seed"]} if "seed" in variant else {}))
    return configs


def is_value(folder: Path, argument: str) -> bool:
    """Whether an override sets one plain value of a key that a configuration has, and chooses no file."""
    key, equals, value = argument.partition("=")
    plain = bool(equals) and not set(value) & set("{}[]()$'\"\\,")
    return plain and key[:1] not in "+~" and not (folder / key).is_dir() and not is_hydras(key)


def values(folder: Path, job: Sequence[str]) -> dict:
    return {o.key_or_group: o.value() for o in parsed(a for a in job if is_value(folder, a))}


def parsed(arguments: Iterable[str]) -> list[Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser, found = OverridesParser.create(), []
    for argument in arguments:
        try:
            found.append(told(parser.parse_override, argument))
        except UserError as error:
            raise UserError(f"{argument}: {error}") from None
    return found


@contextmanager
def conf(project: Path) -> Iterator[None]:
    """Within it, Hydra composes from the project's conf/, also where it runs already."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    if not (project / "conf" / "run.yaml").is_file():
        raise UserError(f"{project}: holds no conf/run.yaml; give the folder of run.py with --project")
    around, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(str((project / "conf").resolve()), version_base="1.3", job_name="run"):
            yield
    finally:
        GlobalHydra.instance().hydra = around


def told(function, *arguments, **more):
    """Its result; what Hydra has against the arguments is one line."""
    try:
        return function(*arguments, **more)
    except Exception as error:
        if isinstance(error, UserError) or not is_users(error):
            raise
        raise UserError(one_line(error)) from None
