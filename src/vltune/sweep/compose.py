"""The configuration of each run of a sweep: what Hydra composes of its overrides, in less time.

Hydra takes some 70 ms for one, and a thousand runs differ in few files and in many plain values (seeds, rates, sizes).  So
every file is read once, runs that differ in plain values alone are composed once, and the values are set in what was
composed, as Hydra does it.  Resolving takes another 3 ms, and is done once for values that nothing else follows from: they
are taken out, and OmegaConf resolves the rest without them or says that it cannot.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.command_line import resolve
from vltune.data.pool import cores
from vltune.overrides import conf, explained, of_libraries, parse

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

FEW = 8  # compositions that are not worth other processes


@dataclass(frozen=True)
class Alike:
    """Runs that differ in plain values alone.

    overrides: of the first of them, whole.  values: {key: its value} of each; all have the same keys."""

    overrides: tuple[str, ...]
    values: list[dict[str, Any]]


def configurations(project: Path, jobs: Sequence[Sequence[str]]) -> list[dict]:
    """The resolved configuration of each run.  UserError that names the override which is wrong."""
    numbers: dict[tuple, list[int]] = defaultdict(list)
    values = [settable(project / "conf", job) for job in jobs]
    for number, (job, own) in enumerate(zip(jobs, values, strict=True)):
        fixed = tuple(argument for argument in job if argument.partition("=")[0] not in own)
        numbers[fixed, tuple(own)].append(number)
    groups = [Alike(tuple(jobs[of[0]]), [values[number] for number in of]) for of in numbers.values()]
    found: list[dict] = [{}] * len(jobs)
    for of, resolved in zip(numbers.values(), _composed(project, groups), strict=True):
        for number, config in zip(of, resolved, strict=True):
            found[number] = config
    return found


def settable(folder: Path, job: Sequence[str]) -> dict[str, Any]:
    """{key: value} of the overrides that may be set after all others: plain values, in whose place no other one sets
    anything.  folder: conf/."""
    given = [parse(argument) for argument in job]
    plain = {o.key_or_group: o.value() for o in given if is_plain(folder, o)}
    others = [o.key_or_group for o in given if not is_plain(folder, o) and not is_choice(folder, o)]
    return {
        key: value
        for key, value in plain.items()
        if not any(_overlap(key, other) for other in (*others, *(plain.keys() - {key})))
    }


def is_choice(folder: Path, override: Override) -> bool:
    """Of a file of a group: Hydra reads these before it sets any value."""
    return isinstance(override.value(), str) and (folder / override.key_or_group).is_dir()


def is_plain(folder: Path, override: Override) -> bool:
    """`key=value` of a number, a word or null, in which OmegaConf reads nothing more."""
    added = override.is_add() or override.is_delete() or override.is_force_add() or override.package is not None
    value, key = override.value(), override.key_or_group
    return (
        not added
        and not (folder / key).is_dir()
        and all(part.isidentifier() for part in key.split("."))
        and (value is None or isinstance(value, str | int | float))
        and not any(mark in str(value) for mark in ("$", "???"))
    )


def _overlap(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _composed(project: Path, groups: Sequence[Alike]) -> Iterable[list[dict]]:
    if len(groups) <= FEW:
        return compose_groups(project, groups)
    count = min(len(groups) // 2, cores())
    size = -(-len(groups) // count)
    shares = [groups[start : start + size] for start in range(0, len(groups), size)]
    pool = ProcessPoolExecutor(count, get_context("fork"), _end_with, (os.getpid(),))
    try:
        found = list(pool.map(compose_groups, itertools.repeat(project, len(shares)), shares))
    finally:
        pool.shutdown(cancel_futures=True)
    return itertools.chain.from_iterable(found)


def _end_with(parent: int) -> None:
    """Of a process that composes: it leaves Ctrl-C to its parent, and ends with it, even where that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def compose_groups(project: Path, groups: Sequence[Alike]) -> list[list[dict]]:
    with conf(project), files_read_once():
        return [compose_alike(project, group) for group in groups]


@contextmanager
def files_read_once() -> Iterator[None]:
    """Within it and `conf`, Hydra reads no configuration file twice; by itself it reads all of them for every one."""
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    before = loader.repository
    loader.repository = _ReadFiles(before)
    try:
        yield
    finally:
        loader.repository = before


class _ReadFiles:
    """Hydra's repository of configuration files, which it copies for each configuration; the copies share what was read."""

    def __init__(self, repository: Any, read: dict[str, Any] | None = None):
        self.repository, self.read = repository, {} if read is None else read

    def __getattr__(self, name: str) -> Any:
        return getattr(self.repository, name)

    def __deepcopy__(self, memo: dict) -> _ReadFiles:
        from copy import deepcopy

        return _ReadFiles(deepcopy(self.repository, memo), self.read)

    def initialize_sources(self, search_path: Any) -> None:
        """Of a configuration that has another search path (`hydra.searchpath`)."""
        self.repository.initialize_sources(search_path)
        self.read = {}

    def load_config(self, config_path: str) -> Any:
        if config_path not in self.read:
            self.read[config_path] = self.repository.load_config(config_path)
        return self.read[config_path]


def compose_alike(project: Path, group: Alike) -> list[dict]:
    """Within `conf`."""
    base = composed(project, group.overrides)
    several = [key for key in group.values[0] if len({repr(values[key]) for values in group.values}) > 1]
    rest = resolved_without(base, several)
    if rest is not None:
        return [filled(rest, {key: values[key] for key in several}) for values in group.values]
    free = [key for key in several if resolved_without(base, [key]) is not None]
    rests: dict[str, dict | None] = {}  # by the values of settings that others follow from
    configs = []
    for values in group.values:
        for key in several:
            set_in(base, key, values[key], project, group.overrides)
        bound = repr({key: values[key] for key in several if key not in free})
        if bound not in rests:
            rests[bound] = resolved_without(base, free)
        rest = rests[bound]
        configs.append(resolve(base) if rest is None else filled(rest, {key: values[key] for key in free}))
    return configs


def resolved_without(base: DictConfig, keys: Sequence[str]) -> dict | None:
    """The configuration less these settings, resolved while nothing can read them; None where something has to."""
    from omegaconf import AnyNode, DictConfig, OmegaConf

    class Unreadable(AnyNode):
        """By no interpolation, and by no resolver."""

        def _value(self) -> Any:
            raise LookupError

    def node_of(key: str) -> Any:
        place: Any = base
        for part in key.split("."):
            if type(place) is not DictConfig or place._is_interpolation():  # what is there follows from another setting
                return None
            place = place._get_node(part)
        return place

    def around(node: DictConfig, path: str) -> dict:
        found = {}
        for name in node:
            key = f"{path}{name}"
            if key in keys:
                continue
            value = node[name]
            if any(each.startswith(f"{key}.") for each in keys):
                found[name] = around(value, f"{key}.")
            else:
                found[name] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        return found

    nodes = [node_of(key) for key in keys]
    if not all(type(node) is AnyNode for node in nodes):
        return None
    try:
        for node in nodes:
            node.__class__ = Unreadable
        return around(base, "")
    except Exception:  # one was read, or there is an error, which resolving the whole configuration tells
        return None
    finally:
        for node in nodes:
            node.__class__ = AnyNode


def filled(rest: dict, values: Mapping[str, Any]) -> dict:
    """A copy of what a value is put into; what has none is shared."""
    config = dict(rest)
    for key, value in values.items():
        *path, name = key.split(".")
        place = config
        for part in path:
            place[part] = place = dict(place[part])
        place[name] = value
    return config


def composed(project: Path, overrides: Sequence[str], **more: bool) -> DictConfig:
    """Within `conf`.  UserError that names the override which is wrong."""
    from hydra import compose

    with of_libraries(), explained(project, overrides):
        return compose("run", list(overrides), **more)


def set_in(base: DictConfig, key: str, value: Any, project: Path, overrides: Sequence[str]) -> None:
    """What `key=value` among the overrides that `base` is composed of would do.  UserError that names it."""
    from omegaconf import OmegaConf

    with of_libraries(), explained(project, [*overrides, f"{key}={value}"]):
        OmegaConf.update(base, key, value)
