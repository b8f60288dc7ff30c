"""From `+sweep=NAME key=a,b` to runs, each with its overrides: `sweep.compose` makes their configurations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.catalogue import GROUP, families, methods
from vltune.command_line import check_choices
from vltune.errors import UserError
from vltune.overrides import of_libraries, parse
from vltune.sweep import files
from vltune.sweep.compose import composed
from vltune.sweep.hydra_files import reading

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

Families = Mapping[str, tuple[str, ...]]
"""{family: its methods}"""
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

    check_choices(project / "conf", arguments, many=True)
    given, sets = parsed(arguments), families(methods(project / "conf"))
    swept = [override for override in given if override.is_sweep_override() or is_family(override, sets)]
    if whole := next(filter(is_of_all, swept), None):
        raise UserError(f"{whole.input_line}: one sweep at a time, started in one way; leave all values but one out")
    # The others hold for runs: of the backbone, task and method that the sweep gives them.
    of_all = [override.input_line for override in given if is_of_all(override)]
    with reading(project):
        for override in given:
            if override.key_or_group == SWEEP:
                files.check(project, override.value())
        base = composed(project, of_all, return_hydra_config=True)
        with of_libraries():
            launcher, sweeper = (OmegaConf.to_container(base.hydra[name]) for name in HYDRAS)
        params = files.checked_params(sweeper.get("params"), "hydra.sweeper.params")
        own = [override for override in given if override not in swept and not is_hydras(override.key_or_group)]
        choices: dict[str, list[str]] = {}
        for override in [*parsed(f"{key}={value}" for key, value in params.items()), *own, *swept]:
            override.config_loader = GlobalHydra.instance().config_loader()
            key = override.get_key_element()
            values = members(override, sets)
            choices[key] = [key if value is None else f"{key}={value}" for value in values]
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
        with of_libraries():
            values = list(itertools.islice(override.sweep_string_iterator(), MOST_RUNS + 1))
    except UserError as error:  # a step of 0
        raise UserError(f"{override.input_line}: {error}") from None
    if not values:
        raise UserError(f"{override.input_line}: no value is among these; name one at least")
    return values


def is_family(override: Override, sets: Families) -> bool:
    return override.key_or_group == GROUP and isinstance(override.value(), str) and override.value() in sets


def members(override: Override, sets: Families) -> list[str | None]:
    """`values_of` it, with the methods of a family, or all, in its place; `paper,lora` names LoRA once."""
    values = values_of(override)
    if override.key_or_group != GROUP or sets.keys().isdisjoint(values):
        return values
    return list(dict.fromkeys(name for value in values for name in sets.get(value, (value,))))


def value_of(override: Override) -> str | None:
    """None: the override deletes (`~key`)."""
    return None if override.is_delete() and override.value() is None else override.get_value_element_as_str()


def is_of_all(override: Override) -> bool:
    """Whether it says what is swept and how that is started, and nothing of single runs."""
    return is_hydras(override.key_or_group) or override.key_or_group == SWEEP


def is_hydras(key: str) -> bool:
    return key == "hydra" or key.startswith(("hydra.", "hydra/"))


def parsed(arguments: Iterable[str]) -> list[Override]:
    return [parse(argument) for argument in arguments]
