"""What a setting is: its line, what it takes, and whether it decides which run it is; from where it is declared."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, get_args

from vltune.configuration import argument, find, given, parameters, targets
from vltune.errors import UserError
from vltune.runs import identity
from vltune.settings.arguments import ARGUMENTS
from vltune.settings.check import bare, declared, described, is_table, marks, members
from vltune.settings.groups import GROUPS
from vltune.settings.kinds import AnyOrder, Before, ByContent, NotDecisive, NotItself
from vltune.settings.run import RunSettings
from vltune.values import shown

PARTS = {"backbone.tokenizer": "backbone.tokenizer", "backbone.transform": "backbone.transform"}
PARTS |= {group: group for group in ("method", "backbone", "task", "logger")} | {"match.reference": "method"}
"""{where an object's settings stand: the group that its constructor's arguments are declared for}"""


@dataclass(frozen=True)
class Setting:
    """line: what it is, in a sentence.  decides: how it counts in a run's identity."""

    key: str
    line: str
    kind: Any
    decides: str


def explanation(key: str, config: dict) -> str:
    """What is known of a setting of a composed configuration, and the line of each below it.  UserError for no setting."""
    known = settings(config)
    below = [each for each in known if each.startswith(f"{key}.")]
    if key not in known and not below:
        raise UserError(f"{shown(key)}: there is no such setting; {_near(key, known)}")
    text = [f"{each}: {known[each].line}" for each in below]
    if setting := known.get(key):
        rows = {"takes": described(setting.kind), "here": _here(config, key), "identity": setting.decides}
        text = [f"{key}: {setting.line}", *(f"  {name:<8} {row}" for name, row in rows.items()), *text]
    return "\n".join(text)


def settings(config: dict) -> dict[str, Setting]:
    """{key: setting} of all that a configuration with these choices may hold."""
    found = {each.key: each for each in _table("", RunSettings, config, None)}
    for group, table in GROUPS.items():
        if config.get(group) is not None:
            found |= {each.key: each for each in _table(f"{group}.", table, config[group], None)}
    stacked = {f"method.methods.{name}": "method" for name in _at(config, "method.methods") or ()}
    for where, group in (PARTS | stacked).items():
        spec = _at(config, where)
        if isinstance(spec, Mapping) and spec.get("_target_"):
            decides = found[where].decides if where in found else None if group in identity.GROUPS else _NOT
            found |= {each.key: each for each in _arguments(where, group, spec, decides) if each.key not in found}
    return found


_NOT = "another value gives the same run"
_NOT_ITSELF = f"{_NOT} where what it holds, or what follows from it, is the same"
_DECIDES = "decides which run it is"


def _decides(kind: Any, above: str | None) -> str:
    """above: the same of what it is part of."""
    if above in (_NOT, _NOT_ITSELF):
        return above
    if marks(kind, NotDecisive):
        return _NOT_ITSELF if marks(kind, NotItself) else _NOT
    since = "".join(f"; every run before there was a choice had {shown(each.value)}" for each in marks(kind, Before))
    less = ", but not its order" if marks(kind, AnyOrder) else ", by what it holds" if marks(kind, ByContent) else ""
    return _DECIDES + less + since


def _table(prefix: str, table: Any, values: Any, decides: str | None) -> Iterator[Setting]:
    """Those of a class of settings.  decides: how what they are part of counts, where they are part of something."""
    for name, kind in declared(table).items():
        own = _decides(kind, decides)
        yield Setting(f"{prefix}{name}", lines(table).get(name, ""), kind, own)
        value = values.get(name) if isinstance(values, Mapping) else None
        for inner in (bare(each)[0] for each in members(kind)):
            if is_table(inner):
                yield from _table(f"{prefix}{name}.", inner, value, own)
            elif isinstance(value, Mapping) and is_table(get_args(inner)[-1] if get_args(inner) else None):
                for key, each in value.items():
                    yield from _table(f"{prefix}{name}.{key}.", get_args(inner)[-1], each, own)


def _arguments(where: str, group: str, spec: Mapping[str, Any], decides: str | None) -> Iterator[Setting]:
    """Those of the constructor that a specification names, and of its data's reader."""
    known, declarations = lines(ARGUMENTS[group]), declared(ARGUMENTS[group])
    if where != group:
        own = GROUPS.get(group)
        for name, kind in declared(own).items():
            yield Setting(f"{where}.{name}", lines(own)[name], kind, _decides(kind, decides))
    named = targets(where, spec)
    for target in named:
        for name, kind in parameters(target).items():
            if name not in given(group, named):
                line = documented(find(target), tuple(parameters(target))).get(name) or known.get(name, "")
                own = _decides(declarations.get(name, kind), decides)
                yield Setting(f"{where}.{name}", line, argument(group, name, kind), own)


@cache
def lines(table: Any) -> dict[str, str]:
    """{setting: what stands under it} of a class of settings."""
    if not is_table(table):
        return {}
    body = ast.parse(textwrap.dedent(inspect.getsource(table))).body[0].body
    return {
        field.target.id.rstrip("_"): " ".join(text.value.value.split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


@cache
def documented(make: Any, names: tuple[str, ...]) -> dict[str, str]:
    """{argument: the sentence of a class's docstring on it alone}, as in `scale: of the output.  rank: of both maps.`"""
    found: dict[str, str] = {}
    entry = re.compile(rf"(?<![\w`,] )(?<![\w`])({'|'.join(names)}): ")
    for each in inspect.getmro(make) if inspect.isclass(make) else (make,):
        for paragraph in re.split(r"\n\s*\n", vars(each).get("__doc__") or ""):
            parts = entry.split(" ".join(paragraph.split()))
            for name, text in zip(parts[1::2], parts[2::2], strict=True):
                line = re.split(r"\.(?:\s|$)", text)[0].strip(" ,;")
                found.setdefault(name, f"{line[:1].upper()}{line[1:]}.")
    return found


def _at(config: dict, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _here(config: dict, key: str) -> str:
    above, _, name = key.rpartition(".")
    around = _at(config, above) if above else config
    return shown(around[name]) if isinstance(around, Mapping) and name in around else "not set"


def _near(key: str, known: Mapping[str, Setting]) -> str:
    """What was perhaps meant: keys like it, or of the same name elsewhere."""
    name = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, n=3) + [each for each in known if each.rpartition(".")[2] == name]
    if not near:
        return "`python run.py --cfg job` shows those that there are"
    return f"did you mean {' or '.join(dict.fromkeys(near))}?"
