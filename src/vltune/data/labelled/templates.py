"""Prompts for class names: a template holds `{}` where the name goes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Literal

from vltune.errors import UserError

_FILE = Path(__file__).with_name("templates.json")
_ANY = "any"  # in the file: for all data sets that it does not name


@cache
def _known() -> dict[str, dict]:
    return json.loads(_FILE.read_text(encoding="utf-8"))["data_sets"]


def filled(template: str, name: str) -> str:
    return template.replace("{}", name)


def first(data_set: str | None) -> str:
    """The single template that is usual for a data set."""
    return _known().get(data_set, _known()[_ANY])["first"]


def templates(data_set: str | None, choice: Literal["first", "ensemble", "name", "own"], own: str | None) -> list[str]:
    """choice: "first", the usual one, of a data set without one `own`; "ensemble", the published list; "name", the name
    alone, with the full stop of the usual one; "own".

    own: what `dataset.template` says.  UserError where it says something that the choice would leave aside."""
    usual = first(data_set) if data_set in _known() else own or first(data_set)
    if choice == "own" or (choice == "first" and data_set not in _known()):
        return [own or first(data_set)]
    if own not in (None, usual if choice == "name" else first(data_set)):
        raise UserError(f"dataset.template={own!r}: task.template={choice} is another one; add task.template=own")
    if choice == "name":
        return ["{}." if usual.endswith(".") else "{}"]
    if choice == "first":
        return [first(data_set)]
    if (ensemble := _known().get(data_set, _known()[_ANY])["ensemble"]) is None:
        raise UserError(f"task.template=ensemble: no list of {data_set} comes with vltune; use first, or own")
    return ensemble
