"""Definitions of tables: the YAML files beside this one, each looked at before a table is made.  docs/results.md explains
their keys."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

from vltune.errors import UserError
from vltune.results.tables.model import Column

_HERE = Path(__file__).parent
_NUMBER = (int, float)
_NEEDED = {"tables": dict, "experiment": str, "columns": list, "figure": dict}
_OPTIONAL = dict.fromkeys(("rows", "cases", "findings"), dict) | dict.fromkeys(("seeds", "notes"), list)
_OPTIONAL |= dict.fromkeys(("folder", "sweep", "choice"), str)
_OF_TABLE = {"title": str, "backbone": str, "notes": list, "aside": dict}
_OF_ROWS = {"field": str, "values": list, "method": str, "family": str}
_MADE_OF = {"value": str, "mean_of": list, "harmonic_of": list, "ppt": str}
_OF_COLUMN = dict.fromkeys(("key", "title", "short", "experiment", "published", "external"), str) | _MADE_OF
_OF_COLUMN |= {"value_for": dict, "scale": _NUMBER, "digits": int, "unit": int, "relative": bool, "essential": bool}
_OF_FIGURE = {"score": list, "against": list, "along": list, "by_row": bool}
_OF_FINDINGS = {"place": int, "title": str, "what": str, "columns": list}
_FORMS = {
    dict: "a mapping",
    list: "a list",
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    _NUMBER: "a number",
}


@cache
def groups() -> dict[str, dict]:
    """{name of a file: its definition}.  Raises UserError where one is wrong."""
    return read(sorted(_HERE.glob("*.yaml")))


def read(files: Sequence[Path]) -> dict[str, dict]:
    """{name of a file: its definition}.

    Raises UserError, one line with the file, the key and what belongs there, where one is no YAML, lacks something, says
    what nothing reads, or names a table that another has or a column that it has not."""
    import yaml

    from vltune.records import strict_yaml

    found = {}
    for file in files:
        try:
            found[file.stem] = _checked(file, strict_yaml.load(file.read_text(encoding="utf-8")))
        except yaml.YAMLError as error:
            raise UserError(f"{file}: no YAML: {' '.join(str(error).split())}") from None
    tables = Counter(name for group in found.values() for name in group.get("tables", ()))
    for file, (stem, group) in zip(files, found.items(), strict=True):
        for name in group.get("tables", ()):
            if tables[name] > 1 or (name in found and name != stem):
                raise UserError(f"{file}: {name} names another table or file as well: give it its own name")
        for name in group.get("reports", ()):
            _check_name(name, sorted({*found, *tables}), f"{file}: table")
    return found


def columns_of(group: Mapping) -> tuple[Column, ...]:
    """In the order of the definition, one for each case where it has several."""
    found = []
    for column in group["columns"]:
        found += _of_each(column, group["cases"]) if "{case}" in column.get("experiment", "") else [column]
    return tuple(Column(**{"experiment": group["experiment"]} | column) for column in found)


def _of_each(column: dict, cases: Mapping[str, str]) -> list[dict]:
    """A column for each case, shown where there is room, and their mean.

    column: its `experiment` has `{case}` in it.  cases: {what it stands for: as titles have it}."""
    own = {name: said for name, said in column.items() if name not in ("short", "published")} | {"essential": False}
    found = [
        own
        | {"key": f"{case}_{own['key']}", "title": f"{heading}, {own['title']}"}
        | {"experiment": own["experiment"].format(case=case)}
        for case, heading in cases.items()
    ]
    mean = {name: said for name, said in column.items() if name not in ("experiment", "value")}
    return [*found, mean | {"title": f"mean, {own['title']}", "mean_of": tuple(each["key"] for each in found)}]


def _checked(file: Path, group: object) -> dict:
    if isinstance(group, dict) and "reports" in group:
        _check_keys(group, {"reports": list}, (), f"{file}:")
        return group
    _check_keys(group, _NEEDED | _OPTIONAL, _NEEDED, f"{file}:")
    for name, table in group["tables"].items():
        _check_keys(table, _OF_TABLE, ("title",), f"{file}: tables: {name}:")
    _check_keys(group.get("rows", {}), _OF_ROWS, (), f"{file}: rows:")
    known: dict[str, None] = {}
    for column in group["columns"]:
        _check_keys(column, _OF_COLUMN, ("key", "title"), f"{file}: columns:")
        _check_column(column, group, known, f"{file}: column {column['key']}:")
        known |= dict.fromkeys((column["key"], *(f"{case}_{column['key']}" for case in group.get("cases", ()))))
    figure, findings = group["figure"], group.get("findings", {})
    _check_keys(figure, _OF_FIGURE, ("score", "against"), f"{file}: figure:")
    _check_keys(findings, _OF_FINDINGS, _OF_FINDINGS if findings else (), f"{file}: findings:")
    one_panel = figure.get("along") or figure.get("by_row")
    if not figure["score"] or len(figure["against"]) not in ((1, 2) if one_panel else (2,)):
        raise UserError(f"{file}: figure: must have columns under score, and two under against")
    for column in (*figure["score"], *figure["against"], *figure.get("along", ()), *findings.get("columns", ())):
        _check_name(column, known, f"{file}: column")
    return group


def _check_column(column: Mapping, group: Mapping, known: Collection[str], where: str) -> None:
    """known: the columns before it."""
    if column["key"] in known:
        raise UserError(f"{where} is there twice: give each its own key")
    if sum(key in column for key in _MADE_OF) != 1:
        raise UserError(f"{where} must have one of {', '.join(_MADE_OF)}, and no second")
    if "{case}" in column.get("experiment", "") and "cases" not in group:
        raise UserError(f"{where} its experiment is of each case, and the file's 'cases' are missing: add them")
    for key in (*column.get("mean_of", ()), *column.get("harmonic_of", ()), *filter(None, [column.get("ppt")])):
        _check_name(key, known, f"{where} column")


def _check_keys(found: object, forms: Mapping[str, type], needed: Collection[str], where: str) -> None:
    if not isinstance(found, dict):
        raise UserError(f"{where} is {found}: must be a mapping of {', '.join(forms)} (docs/results.md)")
    for key, value in found.items():
        _check_name(key, forms, where)
        form = forms[key]
        if not isinstance(value, form) or (isinstance(value, bool) and form is not bool):
            raise UserError(f"{where} {key} is {value}: must be {_FORMS[form]}")
    if lacking := [key for key in needed if key not in found]:
        raise UserError(f"{where} '{lacking[0]}' is missing: add it (docs/results.md)")


def _check_name(name: object, known: Collection[str], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"{where} {name} is not known: {hint}there are {', '.join(known)}")
