"""`+match=params|macs`: a method's size, solved for a budget before its run has an identity."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from vltune.assemble.factory import build_method
from vltune.assemble.model import build_shapes, protocol
from vltune.configuration import find
from vltune.errors import UserError
from vltune.values import key_of

if TYPE_CHECKING:
    from vltune.settings.config import RunConfig
    from vltune.settings.match import MatchSettings
    from vltune.settings.method import MethodSettings
    from vltune.tuning import Method


def sized(config: RunConfig, overrides: Sequence[str] = ()) -> RunConfig:
    """The same configuration; where it has a `match`, with the method's size solved for the budget, which its hash then
    holds.  overrides: what the user typed."""
    if (match := config.match) is None:
        return config
    spec, by, budget = config.plain["method"], match["by"], match["budget"]
    name = find(spec["_target_"]).size
    if name is None:
        raise UserError(f"+match={by}: {spec['name']} has no size to choose; run it without +match")
    if typed := [override for override in overrides if key_of(override) == f"method.{name}"]:
        raise UserError(f"{typed[0]} and +match={by}: the budget decides method.{name}; leave out one of them")
    size, budget, reached = solved(json.dumps([config.backbone, config.task, config.dataset, spec, match]))
    return config.changed(method=spec | {name: size}, match=match | {"budget": budget, "reached": reached})


@cache
def solved(groups: str) -> tuple[int, int, int]:
    """The size, the budget and what is reached; a sweep asks for the same ones with every seed."""
    from vltune.costs import matching

    *model, spec, match = json.loads(groups)
    counted = json.dumps([*model, match["by"]])
    budget = round(match["budget"] or of_reference(counted, json.dumps(match["reference"])))
    name = find(spec["_target_"]).size
    return matching.solve(match["by"], counter(counted), lambda size: build_method(spec | {name: size}), budget)


@cache
def counter(counted: str) -> Callable[[Method], int]:
    """Counts what a method takes, on the backbone of all that a sweep matches."""
    from vltune.costs import matching

    backbone, task, dataset, by = json.loads(counted)
    model = build_shapes(backbone, task, dataset)
    return matching.COUNTERS[by](model, matching.on_meta(protocol(backbone, model)))


@cache
def of_reference(counted: str, reference: str) -> int:
    try:
        return counter(counted)(build_method(json.loads(reference)))
    except UserError as error:
        raise UserError(f"match.reference.{str(error).removeprefix('method.')}") from None


def summary(method: MethodSettings, match: MatchSettings) -> str:
    """What was chosen, for people."""
    name = find(method["_target_"]).size
    return (
        f"{method['name']}: method.{name}={method[name]} has {match['reached']:,} {match['by']} "
        f"for a budget of {match['budget']:,}"
    )
