"""Which run this is: what decides its numbers, and nothing else.

Names and settings count, never where code or files lie: a module may move.  What files hold counts by fingerprints, which a
record holds too, so that its hash follows from the record alone.  Which settings count is declared with each, in
`vltune.settings`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from vltune.canonical import canonical, text
from vltune.settings.backbone import PICKS
from vltune.settings.check import marks
from vltune.settings.groups import declarations
from vltune.settings.kinds import AnyOrder, Before, ByContent, NotDecisive

GROUPS = ("method", "backbone", "task", "dataset", "engine")


def identity(config: dict, fingerprints: Mapping[str, Any]) -> dict:
    """backbone, method, task, dataset, seed and `hash`.  fingerprints: of pretrained weights, vocabulary and data."""
    return named(config, digest({**settings(config), "fingerprints": fingerprints}))


def of_cost(config: dict) -> dict:
    """The same of what `mode=cost` counts, which no training decides: method, backbone with its protocol, and head."""
    found = settings(config)
    dataset = {key: found["dataset"][key] for key in ("name", "answers", "classes") if key in found["dataset"]}
    return named(
        config, digest({**{group: found[group] for group in ("method", "backbone", "task")}, "dataset": dataset})
    )


def digest(decisive: dict) -> str:
    """8 hexadecimal digits of decisive settings and fingerprints, the seed not among them."""
    return hashlib.sha256(text(decisive).encode()).hexdigest()[:8]


def named(config: dict, digits: str) -> dict:
    names = {group: config[group]["name"] for group in ("backbone", "method", "task", "dataset")}
    return {**names, "seed": config["seed"], "hash": digits}


def settings(config: dict) -> dict:
    """{group: its decisive settings}, canonical, of a resolved configuration."""
    return {group: decisive(group, config[group]) for group in GROUPS if isinstance(config.get(group), dict)}


def decisive(group: str, settings: dict) -> dict:
    """What the settings' declarations leave in, canonical."""
    marked = _marked(group)
    kept = {key: value for key, value in settings.items() if is_decisive(marked.get(key), value)}
    for key, value in kept.items():
        if isinstance(value, list | tuple) and key in marked and marked[key].any_order:
            kept[key] = sorted({*map(str, value)})
        elif value is not None and key in marked and marked[key].by_content:
            kept[key] = True
    if group == "method" and isinstance(kept.get("methods"), dict):  # of a stack, whose order counts
        kept["methods"] = [decisive(group, each) for each in kept["methods"].values()]
    return canonical(_names(_chosen(kept)))


@dataclass(frozen=True)
class Marks:
    """What a setting's declaration says of a run's identity.  before: values at which it is left out."""

    left_out: bool
    before: tuple
    any_order: bool
    by_content: bool


@cache
def _marked(group: str) -> dict[str, Marks]:
    """Of a group's declared settings."""
    return {
        name: Marks(
            left_out=bool(marks(kind, NotDecisive)),
            before=tuple(each.value for each in marks(kind, Before)),
            any_order=bool(marks(kind, AnyOrder)),
            by_content=bool(marks(kind, ByContent)),
        )
        for name, kind in declarations(group).items()
    }


def is_decisive(marked: Marks | None, value: Any) -> bool:
    """Whether a setting counts at a value, by what its declaration says of it; one without a declaration does."""
    return marked is None or not (marked.left_out or value in marked.before)


def _chosen(settings: dict) -> dict:
    """Of several to choose from, `image_towers` by `image_tower`, the chosen one alone."""
    found = dict(settings)
    for key, pick in PICKS.items():
        options, choice = settings.get(key), settings.get(pick)
        if isinstance(options, dict) and isinstance(choice, str) and choice in options:
            found[key] = {choice: options[choice]}
    return found


def _names(value: Any) -> Any:
    """With a class's name in the place of its path."""
    if isinstance(value, list):
        return [_names(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: str(each).rpartition(".")[2] if key == "_target_" else _names(each) for key, each in value.items()}
