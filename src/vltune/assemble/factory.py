"""Objects from the parts of a configuration that name what they are: a method, the engine's settings, and any other."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vltune.catalogue import KEYS
from vltune.configuration import SPEC, check, find, present
from vltune.errors import UserError
from vltune.values import checked, instead

if TYPE_CHECKING:
    from vltune.engine.settings import Settings


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


def build_settings(config: dict) -> Settings:
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
    build_settings(config)
    check(config)


def is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
