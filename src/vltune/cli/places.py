"""Paths among a command's arguments: the same is told of all of them, and `~` is filled in wherever it stands."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from typer.models import ArgumentInfo

from vltune.values import place


def with_places(command: Callable) -> Callable:
    """The command, given paths that were looked at.  UserError that names the option where one can be none."""
    labels = {
        name: label(parameter) for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
    }

    @wraps(command)
    def looked_at(**given: Any) -> Any:
        return command(**{name: _place(labels[name], value) for name, value in given.items()})

    return looked_at


def label(parameter: inspect.Parameter) -> str:
    """How a person types it: `--results-dir`, or an argument's name in the help."""
    arguments = [each for each in getattr(parameter.annotation, "__metadata__", ()) if isinstance(each, ArgumentInfo)]
    if not arguments:
        return f"--{parameter.name.rstrip('_').replace('_', '-')}"
    return (arguments[0].metavar or parameter.name.upper()).removesuffix("...")


def _place(name: str, value: Any) -> Any:
    if isinstance(value, Path):
        return Path(place(name, str(value)))
    return [_place(name, each) for each in value] if isinstance(value, list) else value
