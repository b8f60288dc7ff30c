"""The configuration of each run of a sweep: what Hydra composes of its overrides, in less time.

Hydra takes some 70 ms for one, and a thousand runs differ in few files and in many plain values (seeds, rates, sizes).  So
every file is read once, and runs are composed once that differ in plain values alone, or in files that have no say beyond
their own place (methods); these are set in what was composed, as Hydra does it.  Resolving takes another 3 ms, and is done
once for values that nothing else follows from: they are taken out, and OmegaConf resolves the rest without them or says
that it cannot.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.command_line import resolve
from vltune.data.pool import cores
from vltune.overrides import explained, of_libraries, parse
from vltune.sweep.hydra_files import ReadFiles, reading
from vltune.sweep.processes import copies

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

FEW = 4  # compositions that are not worth other processes


@dataclass(frozen=True)
class Variant:
    """What is set of a run in a configuration that others share.  choices: {group: a file of it}.  values: {key: its plain
    value}."""

    choices: dict[str, str]
    values: dict[str, Any]

    def sets(self, argument: str) -> bool:
        key = argument.partition("=")[0]
        return key in self.choices or key in self.values


@dataclass(frozen=True)
class Alike:
    """Runs that differ in choices that stand alone and in plain values.

    jobs: the overrides of each, whole.  variants: what of them is set; all choose of the same groups and set the same
    keys."""

    jobs: list[Sequence[str]]
    variants: list[Variant]


def configurations(project: Path, jobs: Sequence[Sequence[str]]) -> list[dict]:
    """The resolved configuration of each run.  UserError that names the override which is wrong."""
    with reading(project) as files:
        return _configurations(project, jobs, files)


def _configurations(project: Path, jobs: Sequence[Sequence[str]], files: ReadFiles) -> list[dict]:
    numbers: dict[tuple, list[int]] = defaultdict(list)
    told = assignments(project, jobs, files)
    variants = [variant([told[argument] for argument in job]) for job in jobs]
    for number, (job, own) in enumerate(zip(jobs, variants, strict=True)):
        fixed = tuple(argument for argument in job if not own.sets(argument))
        numbers[fixed, tuple(own.choices), tuple(own.values)].append(number)
    groups = [Alike([jobs[n] for n in of], [variants[n] for n in of]) for of in numbers.values()]
    found: list[dict] = [{}] * len(jobs)
    for of, resolved in zip(numbers.values(), _composed(project, groups), strict=True):
        for number, config in zip(of, resolved, strict=True):
            found[number] = config
    return found


@dataclass(frozen=True)
class Assignment:
    """What an override sets.  plain: `key=value` of a number, a word or null, in which OmegaConf reads nothing more.
    choice: a file of a group; Hydra reads these before it sets any value.  alone: a choice that has no say beyond its own
    place."""

    key: str
    value: Any
    plain: bool
    choice: bool
    alone: bool = False


def assignments(project: Path, jobs: Sequence[Sequence[str]], files: ReadFiles) -> dict[str, Assignment]:
    """What each override sets; which choices stand alone, of groups of which runs choose several, as far as what was
    composed last tells (the first run, where nothing was); `compose_alike` looks at each run."""
    told = {argument: read(project / "conf", parse(argument)) for job in jobs for argument in job}
    names_of: dict[str, set[str]] = defaultdict(set)
    for each in told.values():
        if each.choice:
            names_of[each.key].add(each.value)
    several = [group for group, names in names_of.items() if len(names) > 1]
    if several and not files.used:
        composed(project, jobs[0])
    groups = {group for group in several if files.stands_alone(group)}
    return {
        argument: replace(each, alone=True)
        if each.choice and each.key in groups and files.settings_of(each.key, each.value) is not None
        else each
        for argument, each in told.items()
    }


def read(folder: Path, override: Override) -> Assignment:
    """folder: conf/."""
    key, value = override.key_or_group, override.value()
    added = override.is_add() or override.is_delete() or override.is_force_add() or override.package is not None
    group = (folder / key).is_dir()
    plain = not group and all(part.isidentifier() for part in key.split("."))
    fixed = (value is None or isinstance(value, str | int | float)) and not any(
        mark in str(value) for mark in ("$", "???")
    )
    return Assignment(key, value, not added and plain and fixed, not added and group and isinstance(value, str))


def variant(given: Sequence[Assignment]) -> Variant:
    """Of what a run sets, what may be set after all else: plain values, and choices that stand alone, in whose place
    nothing else sets anything but such values."""
    free = settable(tuple((each.key, each.plain, each.choice) for each in given))
    choices = {each.key: each.value for each in given if each.alone and each.key in free}
    return Variant(choices, {each.key: each.value for each in given if each.plain and each.key in free})


@cache
def settable(given: tuple[tuple[str, bool, bool], ...]) -> frozenset[str]:
    """The keys of plain values and of choices in whose place nothing else is set but such a value.  given: of each setting
    the key, whether it is plain, whether it is a choice."""
    plain = {key for key, is_plain, _ in given if is_plain}
    others = [key for key, is_plain, is_choice in given if not is_plain and not is_choice]
    values = {key for key in plain if not any(_overlap(key, other) for other in (*others, *(plain - {key})))}
    rest = [*others, *(plain - values)]
    choices = {key for key, _, is_choice in given if is_choice and not any(_overlap(key, other) for other in rest)}
    return frozenset(values | choices)


def _overlap(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _composed(project: Path, groups: Sequence[Alike]) -> Iterable[list[dict]]:
    if len(groups) <= FEW:
        return compose_groups(project, groups)
    count = min(len(groups) // 2, cores())
    size = -(-len(groups) // count)
    shares = [groups[start : start + size] for start in range(0, len(groups), size)]
    with copies(count) as pool:
        found = list(pool.map(compose_groups, itertools.repeat(project, len(shares)), shares))
    return itertools.chain.from_iterable(found)


def compose_groups(project: Path, groups: Sequence[Alike]) -> list[list[dict]]:
    with reading(project) as files:
        return [compose_alike(project, group, files) for group in groups]


def compose_alike(project: Path, group: Alike, files: ReadFiles) -> list[dict]:
    """Within `reading`."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, each in enumerate(group.variants):
        numbers[repr(each.choices)].append(number)
    files.used.clear()
    base = composed(project, group.jobs[0])
    alone = all(map(files.stands_alone, group.variants[0].choices))
    found: list[dict] = [{}] * len(group.jobs)
    for of in numbers.values():
        job, first, values = group.jobs[of[0]], group.variants[of[0]], [group.variants[n].values for n in of]
        if of[0] != 0:
            base = chosen(project, base, first, job, files) if alone else composed(project, job)
        for number, config in zip(of, with_values(project, base, values, job), strict=True):
            found[number] = config
    return found


def chosen(project: Path, base: DictConfig, variant: Variant, job: Sequence[str], files: ReadFiles) -> DictConfig:
    """The configuration, changed to what `job` composes to, which differs in what the variant sets."""
    from omegaconf import OmegaConf

    for group, name in variant.choices.items():
        OmegaConf.update(base, group, files.settings_of(group, name), merge=False)
    for key, value in variant.values.items():
        set_in(base, key, value, project, job)
    return base


def with_values(
    project: Path, base: DictConfig, variants: Sequence[dict[str, Any]], overrides: Sequence[str]
) -> list[dict]:
    """The configuration with each of these values, resolved; it may hold the last ones afterwards."""
    several = [key for key in variants[0] if len({repr(values[key]) for values in variants}) > 1]
    rest = resolved_without(base, several)
    if rest is not None:
        return [filled(rest, {key: values[key] for key in several}) for values in variants]
    free = [key for key in several if resolved_without(base, [key]) is not None]
    rests: dict[str, dict | None] = {}  # by the values of settings that others follow from
    configs = []
    for values in variants:
        for key in several:
            set_in(base, key, values[key], project, overrides)
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


def parts_of(config: dict) -> tuple[int, ...]:
    """Of which objects a configuration is made, its seed aside: those with the same ones differ in nothing else, as long
    as they live."""
    return tuple(id(value) for key, value in config.items() if key != "seed")


def composed(project: Path, overrides: Sequence[str], **more: bool) -> DictConfig:
    """Within `reading`, or `overrides.conf`.  UserError that names the override which is wrong."""
    from hydra import compose

    with of_libraries(), explained(project, overrides):
        return compose("run", list(overrides), **more)


def set_in(base: DictConfig, key: str, value: Any, project: Path, overrides: Sequence[str]) -> None:
    """What `key=value` among the overrides that `base` is composed of would do.  UserError that names it."""
    from omegaconf import OmegaConf

    with of_libraries(), explained(project, [*overrides, f"{key}={value}"]):
        OmegaConf.update(base, key, value)
