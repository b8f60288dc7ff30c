"""How the methods of a table are presented: as conf/method says here, and those that are not in it as their records say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from vltune.catalogue import GROUP, Presentation, presentation
from vltune.errors import UserError

Methods = Mapping[str, Presentation]
"""{name: its presentation}"""
NONE: Methods = MappingProxyType({})


def presentations(methods: Methods, records: Iterable[dict]) -> dict[str, Presentation]:
    """{method: its presentation} of `methods`, and of those that only the records name.

    A record may come from elsewhere, or from before its method was presented otherwise: what is in `methods` is not asked
    of it.  A method whose records say different things, or nothing that can be used, has its name alone, and so has one
    whose label means another."""
    said: dict[str, set[Presentation]] = defaultdict(set)
    for record in records:
        if (name := record["identity"]["method"]) not in methods:
            said[name].add(_of(name, record))
    found = dict(methods) | {
        name: next(iter(each)) if len(each) == 1 else Presentation(name, name) for name, each in said.items()
    }
    labels = Counter(each.label for each in found.values())
    return {
        name: each if _is_its_own(each, labels, found) else replace(each, label=name) for name, each in found.items()
    }


def _is_its_own(each: Presentation, labels: Counter, found: Methods) -> bool:
    return labels[each.label] == 1 and (each.label == each.name or each.label not in found)


def _of(name: str, record: dict) -> Presentation:
    settings = record["config"].get(GROUP)
    try:
        return presentation(name, settings if isinstance(settings, dict) else {})
    except UserError:
        return Presentation(name, name)
