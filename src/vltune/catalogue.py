"""Which methods there are, and how each is presented: conf/method holds one file of each, and nothing lists them.

Beside what the method's constructor takes a file says `label` (how tables name it), `order` (its place among the rows),
`families` (sets of methods that a table or a sweep names), `colour` (of the palette that figures and pages share) and
`rates` (the learning rates that are tried).  None of these decides a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from vltune.errors import UserError

GROUP = "method"
"""The folder of conf/, and the key of a configuration."""
ALL = "all"
"""In the place of a family: every method that there is, but those `APART`."""
PAPER = "paper"
"""The family that a table has rows of at least, unless its definition says another."""
CONTROL = "control"
"""The family of what is no tuning method and says what a score is worth: last, only where it was run, never tested."""
APART = "apart"
"""The family of what is not in `ALL`: many methods by its settings, so that one row of it means nothing, or one that some
backbones alone have room for."""
TWO_TOWERS = "two_towers"
"""The family that tables of a backbone of two towers have rows of."""
SUBJECT = "subject"
"""The family that tables of generated pictures of a subject have rows of."""
COLOURS = 8
"""In the palette."""


TABLES = (PAPER, CONTROL, APART, TWO_TOWERS, SUBJECT)
"""Families that say where a method has a row, not what kind it is."""


@dataclass(frozen=True)
class Presentation:
    """Of one method.  order: inf, after all that have one.  colour: None, grey."""

    name: str
    label: str
    order: float = inf
    families: tuple[str, ...] = ()
    colour: int | None = None

    @property
    def is_control(self) -> bool:
        return CONTROL in self.families

    @property
    def family(self) -> str | None:
        """What kind of method it is, which its colour tells: the first of its families that is a kind."""
        return next((each for each in self.families if each not in TABLES), None)

    @property
    def place(self) -> tuple[float, str]:
        """What methods are sorted by."""
        return self.order, self.name


def presentation(name: str, settings: Mapping[str, Any]) -> Presentation:
    """What the settings of a method say of it; what they lack has its default.  UserError, `KEY: ...`, for what is none."""
    label, order = settings.get("label", name), settings.get("order")
    families, colour = settings.get("families", ()), settings.get("colour")
    if not isinstance(label, str) or not label.strip() or not label.isprintable():
        raise UserError(f"label: {label!r} must be a text of one line")
    if order is not None and not _is_number(order):
        raise UserError(f"order: {order!r} must be a whole number")
    if not isinstance(families, list | tuple) or not all(isinstance(each, str) for each in families):
        raise UserError(f"families: {families!r} must be a list of names")
    if colour is not None and not (_is_number(colour) and 0 <= colour < COLOURS):
        raise UserError(f"colour: {colour!r} must be a whole number from 0 to {COLOURS - 1}, or null")
    return Presentation(name, label, inf if order is None else order, tuple(families), colour)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def methods(conf: Path) -> dict[str, Presentation]:
    """{name: its presentation} of the files in `conf`/method, in their order; none where there is no such folder.

    UserError in one line for a file that cannot be used, and for two methods, or a method and a family, of one name."""
    found = {}
    for file in sorted(conf.glob(f"{GROUP}/*.yaml")):
        try:
            settings = _settings(file)
            if settings.get("name") != file.stem:
                raise UserError(f"name: {settings.get('name')!r} must be the file's, {file.stem}")
            found[file.stem] = presentation(file.stem, settings)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
    shown: dict[str, str] = {}
    for each in found.values():
        for text in {each.name, each.label}:
            if (other := shown.setdefault(text, each.name)) != each.name:
                raise UserError(f"{conf / GROUP}: {other} and {each.name} are both named {text}")
        if taken := next((family for family in each.families if family == ALL or family in found), None):
            raise UserError(
                f"{conf / GROUP / each.name}.yaml: families: {taken} means other methods; choose another name"
            )
    return dict(sorted(found.items(), key=lambda item: item[1].place))


def _settings(file: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read ({str(error).splitlines()[0]})") from None
    settings = content.get(GROUP, content) if isinstance(content, dict) else None
    if not isinstance(settings, dict):
        raise UserError("holds no settings")
    return settings


def families(known: Mapping[str, Presentation]) -> dict[str, tuple[str, ...]]:
    """{family: its methods, in their order}, with `ALL`."""
    names = dict.fromkeys(family for each in known.values() for family in each.families)
    of = {family: tuple(name for name, each in known.items() if family in each.families) for family in names}
    return {ALL: tuple(name for name, each in known.items() if APART not in each.families)} | of
