"""YAML as people mean it: by the core schema of YAML 1.2, and a key once.

PyYAML reads YAML 1.1, where 070 is 56, 1:30 is 90, 1_000 is 1000, `yes` is true and 2026-11-20 a date, and of a key that
stands twice it keeps the last.  ruamel.yaml, the nearest library, still reads 1_000 as a number and 2026-11-20 as a date.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

# https://yaml.org/spec/1.2.2/#1032-tag-resolution; what is none of these is a text.
_CORE: tuple[tuple[re.Pattern, Callable[[str], Any]], ...] = tuple(
    (re.compile(pattern), value)
    for pattern, value in (
        (r"null|Null|NULL|~|", lambda text: None),
        (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
        (r"[-+]?[0-9]+", int),
        (r"0o[0-7]+", lambda text: int(text, 8)),
        (r"0x[0-9a-fA-F]+", lambda text: int(text, 16)),
        (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
        (r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", lambda text: float(text.replace(".", ""))),
    )
)


class _Loader(yaml.BaseLoader):
    def resolve(self, kind: type, value: str, implicit: tuple[bool, bool]) -> str:
        """The tag of a node that was given none."""
        return ""


def load(text: str) -> Any:
    """The one document in `text`, of which tags and aliases are no part.  Raises yaml.YAMLError, which says where."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _value(node, set())
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None


def _value(node: yaml.Node, seen: set[int]) -> Any:
    if node.tag:
        raise _wrong(node, f"the tag {node.tag} is not read")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if id(node) in seen:
        raise _wrong(node, "an alias of this is not read")
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, seen) for each in node.value]
    found = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _wrong(key_node, "a key must be a single value")
        if (key := _value(key_node, seen)) in found:
            raise _wrong(key_node, f"{key!r} stands twice")
        found[key] = _value(value_node, seen)
    return found


def _scalar(node: yaml.ScalarNode) -> Any:
    if node.style is not None:  # quoted, or a block
        return node.value
    try:
        return next((value(node.value) for pattern, value in _CORE if pattern.fullmatch(node.value)), node.value)
    except ValueError as error:  # of so many digits
        raise _wrong(node, str(error)) from None


def _wrong(node: yaml.Node, what: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)
