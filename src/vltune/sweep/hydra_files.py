"""The files that Hydra composes a configuration of: each read once, and which of them has no say beyond its own place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.overrides import conf

if TYPE_CHECKING:
    from hydra.plugins.config_source import ConfigResult

GLOBAL = "_global_"


@contextmanager
def reading(project: Path) -> Iterator[ReadFiles]:
    """Within it, Hydra composes from the project's conf/ and reads no file twice, and OmegaConf parses no interpolation
    twice; by themselves they do so for every configuration.  Within itself, of the same project, it is one.

    A parsed interpolation is a tree that OmegaConf only walks through."""
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import base

    if (running := GlobalHydra.instance()).is_initialized():
        files = running.config_loader().repository
        if isinstance(files, ReadFiles) and files.project == project.resolve():
            yield files
            return
    with conf(project):
        loader, parse = GlobalHydra.instance().config_loader(), base.parse
        loader.repository = files = ReadFiles(loader.repository, project.resolve())
        base.parse = cache(parse)
        try:
            yield files
        finally:
            base.parse = parse


class ReadFiles:
    """Hydra's repository of configuration files, which it copies for each configuration; the copies share what was read.

    project: the folder of conf/.  used: the names of what was asked for since it was last emptied, `method/lora` for
    one."""

    def __init__(self, repository: Any, project: Path):
        self.repository, self.project = repository, project
        self.read: dict[str, ConfigResult | None] = {}
        self.used: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.repository, name)

    def __deepcopy__(self, memo: dict) -> ReadFiles:
        again = ReadFiles(deepcopy(self.repository, memo), self.project)
        again.read, again.used = self.read, self.used
        return again

    def initialize_sources(self, search_path: Any) -> None:
        """Of a configuration that has another search path (`hydra.searchpath`)."""
        self.repository.initialize_sources(search_path)
        self.read = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        self.used.add(config_path)
        found = self.content(config_path)
        if found is not None and _package(config_path, found).partition(".")[0] in ("", GLOBAL):
            # What is set at or beneath it, Hydra writes into its own nodes.
            return replace(found, config=deepcopy(found.config))
        return found

    def content(self, name: str) -> ConfigResult | None:
        if name not in self.read:
            self.read[name] = self.repository.load_config(name)
        return self.read[name]

    def settings_of(self, group: str, choice: str) -> Mapping | None:
        """What the file holds that is chosen; None where it does more than to stand in its group's place."""
        found = self.content(f"{group}/{choice}")
        plain = found is not None and _package(f"{group}/{choice}", found) == group and _chooses_nothing(found)
        return found.config if plain else None

    def stands_alone(self, group: str) -> bool:
        """Whether of the used files none but the chosen one sets anything in the group's place, or follows from its
        choice."""
        others = [name for name in self.used if name.rpartition("/")[0] != group]
        found = {name: self.read[name] for name in others if self.read.get(name) is not None}
        return not any(_sets(group, name, each) or _follows(group, each) for name, each in found.items())


def _package(name: str, file: ConfigResult) -> str:
    package = file.header.get("package")
    return name.rpartition("/")[0].replace("/", ".") if package is None else package


def _chooses_nothing(file: ConfigResult) -> bool:
    return all(each.is_self() for each in file.defaults_list or ())


def _sets(group: str, name: str, file: ConfigResult) -> bool:
    package = _package(name, file).removeprefix(f"{GLOBAL}.")
    return group in file.config if package in ("", GLOBAL) else package.partition(".")[0] == group


def _follows(group: str, file: ConfigResult) -> bool:
    """Whether its list of defaults has more of the group than the choice that stands unless another is made."""
    for each in file.defaults_list or ():
        words = [str(value) for value in vars(each).values() if isinstance(value, str)]
        plain = getattr(each, "group", None) == group and not each.is_override() and each.package is None
        if any(group in word for word in words) and not (plain and "$" not in str(each.value)):
            return True
    return False
