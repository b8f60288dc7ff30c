"""Values against declared types, by pydantic, and the line that a person gets where a value is not of its type."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from annotated_types import Interval
from typing_extensions import NotRequired, TypedDict, get_type_hints, is_typeddict

from vltune.errors import UserError
from vltune.settings.kinds import Called, Folder, Null
from vltune.values import instead, place, said

if TYPE_CHECKING:
    from pydantic import TypeAdapter

LARGEST_WHOLE = 2**53  # which JSON holds exactly
LARGEST = 3.4e38  # of float32


def checked(name: str, value: Any, kind: Any) -> Any:
    """The value, with `~` filled in where it is a path.  UserError that names the setting where it is not of this type.

    Nothing is taken for what it is not: "1" is no number, true is no 1, nan and inf are none."""
    from pydantic import ValidationError

    try:
        return _filled(adapter(kind).validate_python(value), value)
    except ValidationError as error:
        _refuse(name, value, kind, error.errors(include_url=False, include_context=False)[0])


def present(settings: Mapping[str, Any], name: str, where: str = "") -> Any:
    if name not in settings:
        raise UserError(f"{where}{name}: is missing; a run needs it")
    return settings[name]


@cache
def declared(kind: Any) -> dict[str, Any]:
    """{setting: its type} of a class of settings, where a keyword of Python has a `_` behind it; empty for what is none."""
    if not is_table(kind):
        return {}
    return {name.rstrip("_"): each for name, each in get_type_hints(kind, include_extras=True).items()}


def is_table(kind: Any) -> bool:
    """Whether a type is a class of settings."""
    return is_typeddict(kind) or is_dataclass(kind)


def is_open(kind: Any) -> bool:
    """Whether a class of settings leaves others to a constructor."""
    return getattr(kind, "__pydantic_config__", {}).get("extra") == "allow"


def bare(kind: Any) -> tuple[Any, tuple]:
    """A type without `NotRequired` and `Annotated`, and the marks that it had."""
    if get_origin(kind) is NotRequired:
        return bare(get_args(kind)[0])
    return (get_args(kind)[0], get_args(kind)[1:]) if get_origin(kind) is Annotated else (kind, ())


def marks(kind: Any, mark: type) -> list:
    """Those of one sort that a declaration carries."""
    return [each for each in bare(kind)[1] if isinstance(each, mark)]


def members(kind: Any) -> tuple:
    """Of a union its members; else the type alone."""
    inner, _ = bare(kind)
    return get_args(inner) if get_origin(inner) in (Union, types.UnionType) else (kind,)


@cache
def adapter(kind: Any) -> TypeAdapter:
    from pydantic import TypeAdapter

    strict = _strict(kind)
    return TypeAdapter(strict, config=None if is_typeddict(bare(strict)[0]) else _CONFIG)


_CONFIG: Any = {"strict": True, "allow_inf_nan": False, "extra": "forbid"}


def _strict(kind: Any) -> Any:
    """A declared type as pydantic has it: numbers within what files hold, a list in a tuple's place, paths that can be."""
    from pydantic import PlainValidator, Strict

    origin, inner = get_origin(kind), get_args(kind)
    if is_table(kind):
        fields = {name: _strict(each) for name, each in declared(kind).items()}
        table = TypedDict(kind.__name__, fields)
        table.__pydantic_config__ = _CONFIG | ({"extra": "allow"} if is_open(kind) else {})
        return table
    if kind is int:
        return Annotated[int, Interval(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]
    if kind is float:
        return Annotated[float, Interval(ge=-LARGEST, le=LARGEST)]
    if bare(kind)[0] is Path:
        return Annotated[Any, PlainValidator(partial(_place, folder=bool(marks(kind, Folder))))]
    if origin is NotRequired:
        return NotRequired[_strict(inner[0])]
    if origin is Annotated:
        return Annotated[(_strict(inner[0]), *inner[1:])]
    if origin is Literal or not inner:
        return kind
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_strict, inner))]  # noqa: UP007
    if origin is tuple:
        return Annotated[tuple[tuple(each if each is Ellipsis else _strict(each) for each in inner)], Strict(False)]
    if origin is Iterable:  # which pydantic would leave unread
        origin = Sequence
    return origin[tuple(map(_strict, inner))]


def _place(value: Any, folder: bool) -> str:
    try:
        return place("", value, folder=folder)
    except UserError as error:
        raise ValueError(str(error)) from error


def _filled(found: Any, given: Any) -> Any:
    """What was given, in its order and its types of numbers, with the texts that were found."""
    if isinstance(given, Mapping):
        return {key: _filled(found[key], value) for key, value in given.items()}
    return found if isinstance(given, str | Path) else given


def _refuse(name: str, value: Any, kind: Any, error: Mapping[str, Any]) -> NoReturn:
    """Raises the line of an error of pydantic's."""
    for part in error["loc"]:
        table = next((bare(each)[0] for each in members(kind) if _inside(bare(each)[0])), None)
        if table is None or not isinstance(value, Mapping):
            break  # of a list, or of a union's member, which stand in the line as a whole
        fields = declared(table)
        if part not in value:
            raise UserError(f"{name}.{part}: is missing; a run needs it")
        if is_table(table) and part not in fields:
            raise UserError(f"{name}.{part}: there is no such setting; {instead(part, fields)}")
        name, value, kind = f"{name}.{part}", value[part], fields[part] if is_table(table) else get_args(table)[1]
    found = members(kind)
    if paths := [each for each in found if bare(each)[0] is Path]:
        place(name, value, type(None) in found, any(marks(each, Folder) for each in paths))
    raise UserError(f"{said(name, value)}: must be {described(kind)}{_too_large(value)}")


def _inside(kind: Any) -> bool:
    """Whether a type holds settings that have names."""
    origin = get_origin(kind)
    return is_table(kind) or (isinstance(origin, type) and issubclass(origin, Mapping))


def _too_large(value: Any) -> str:
    if not isinstance(value, int | float) or abs(value) <= LARGEST_WHOLE:
        return ""
    return f", at most {LARGEST_WHOLE}" if isinstance(value, int) else f", at most {LARGEST:g}"


def described(kind: Any) -> str:
    """What a type is called, after `must be`."""
    found = members(kind)
    named = " or ".join(_described(each) for each in found if each is not type(None))
    hint = "".join(each.words for each in marks(kind, Null))
    return named + (f", or null{hint}" if type(None) in found else "")


def _described(kind: Any) -> str:
    inner, _ = bare(kind)
    origin, parts = get_origin(inner), get_args(inner)
    if words := marks(kind, Called):
        return words[0].words
    if is_table(inner) and not is_open(inner):
        return "{" + ", ".join(f"{name}: ..." for name in declared(inner)) + "}"
    if origin is Literal:
        options = [f'"{each}"' if each in ("true", "false", "null") else str(each) for each in parts]
        return f"one of {', '.join(options)}" if len(options) > 1 else options[0]
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"a list of {len(parts)}, each {_described(parts[0])}"
    if inner in (dict, Mapping) or _inside(inner):
        return "{name: ..., ...}"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return f"a list, each {described(parts[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", Path: "a path"}
    return names.get(inner, "something else") + "".join(map(_limits, marks(kind, Interval)))


def _limits(limit: Interval) -> str:
    if limit.gt is not None:
        return f" above {limit.gt:g}" + (f", at most {limit.le:g}" if limit.le is not None else "")
    if limit.le is None and limit.lt is None:
        return f" of at least {limit.ge:g}"
    return f" from {limit.ge:g} to " + (f"{limit.le}" if limit.le is not None else f"below {limit.lt:g}")
