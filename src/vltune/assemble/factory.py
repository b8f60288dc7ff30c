"""Objects from the parts of a configuration that name what they are: a method, and any other."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from vltune.configuration import check, find
from vltune.errors import UserError
from vltune.settings.check import checked, declared, present
from vltune.settings.engine import Settings
from vltune.settings.kinds import Spec
from vltune.settings.method import MethodSettings

OF_ALL = ("sites_in", "always_trained")
"""Settings that every method has."""


def build(spec: dict, **more: Any) -> Any:
    """Calls `_target_` with those of the other keys and of `more` that it takes."""
    make = find(spec["_target_"])
    takes = inspect.signature(make).parameters
    return make(**{key: value for key, value in (spec | more).items() if key in takes})


def build_method(spec: dict):
    """A method takes every key of its configuration, so that a misspelt one is told, but for those that any method may
    have: `sites_in` and `always_trained`, and how it is presented, which is none of its affair."""
    aside = {"_target_", *declared(MethodSettings)} - {"methods"}
    make, given = find(spec["_target_"]), {key: value for key, value in spec.items() if key not in aside}
    known = inspect.signature(make).parameters
    for key in given:
        if key not in known:
            raise UserError(f"method.{key}: {spec['name']} has no such setting; it has {', '.join(known) or 'none'}")
    if "methods" in given:
        given["methods"] = [build_method(each) for each in of_stack(given["methods"])]
    method = make(**given)
    if "sites_in" in spec and not hasattr(method, "roles"):
        parts = "method.methods.NAME.sites_in says it of each of its methods" if "methods" in given else "leave it out"
        raise UserError(f"method.sites_in: {spec['name']} itself acts at no sites; {parts}")
    for key in OF_ALL:
        setattr(method, key, spec.get(key, getattr(method, key)))
    return method


def of_stack(specs: dict[str, dict]) -> Iterator[dict]:
    """The specifications of a stack's methods, each by its name; what is trained beside them is the stack's to say."""
    for name, spec in specs.items():
        if spec.get("always_trained", "paper") != "paper":
            raise UserError(f"method.methods.{name}.always_trained: is of the whole stack; set method.always_trained")
        yield {"name": name, **spec}


def check_values(config: dict) -> None:
    """Raises UserError for a value that no run can have, before anything is read or made; fills in `~` in place."""
    config["engine"] = checked("engine", present(config, "engine"), Spec)
    Settings.of(config["engine"])
    check(config)


def is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
