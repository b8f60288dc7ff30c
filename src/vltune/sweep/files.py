"""A sweep's file, `sweeps/NAME.yaml`, before Hydra merges it with the rest: what it would pass over in silence is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from vltune.errors import UserError
from vltune.records import strict_yaml

HEADER = "# @package _global_"


def check(project: Path, name: Any) -> None:
    """UserError in one line for what is no sweep of this project."""
    folder = project / "conf" / "sweep"
    file = folder / f"{name}.yaml"
    known = sorted(each.stem for each in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"+sweep={name}: no such sweep; there are {', '.join(known)}")
    text, content = read(file)
    if text.startswith("\ufeff"):
        raise UserError(
            f"{file}: begins with a byte order mark, with which Hydra reads no settings; save it without one"
        )
    if not text.lstrip().startswith(HEADER):
        raise UserError(f"{file}: its first line must be {HEADER}, without which its settings are read by nothing")
    check_numbers(file, text, content)
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no settings; it lacks at least sweep: {name}")
    if not isinstance(group := content.get("sweep"), str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", group, re.ASCII):
        raise UserError(f"{file}: sweep: {group} must be a name of letters, digits, _, - and ., such as {name}")
    for part in ("hydra", "hydra.sweeper"):
        inner = content.get("hydra") if part == "hydra" else (content.get("hydra") or {}).get("sweeper")
        if inner is not None and not isinstance(inner, dict):
            raise UserError(f"{file}: {part}: {inner} must hold settings")
    checked_params(((content.get("hydra") or {}).get("sweeper") or {}).get("params"), f"{file}: hydra.sweeper.params")
    settings = {*read(project / "conf" / "run.yaml")[1], "defaults"} | {each.name for each in folder.parent.iterdir()}
    for key in content.keys() - settings:
        if not re.search(rf"\$\{{{re.escape(str(key))}\b", text):
            raise UserError(f"{file}: {key} is read by nothing; is it spelt as in conf/run.yaml?")


def check_numbers(file: Path, text: str, content: Any) -> None:
    """UserError for a number that Hydra reads as another one: 010 as 8, 1:30 as 90."""
    import yaml

    with suppress(yaml.YAMLError):  # what is told elsewhere, or has an alias
        for key, meant, found in differing(strict_yaml.load(text), content):
            raise UserError(
                f"{file}: {key}: Hydra would read {meant} as {found}; write what you mean, or put it in quotes"
            )


def differing(meant: Any, found: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(meant, dict) and isinstance(found, dict):
        for name in meant.keys() & found.keys():
            yield from differing(meant[name], found[name], f"{key}.{name}" if key else str(name))
    elif isinstance(meant, list) and isinstance(found, list):
        for one, other in zip(meant, found, strict=False):
            yield from differing(one, other, key)
    elif isinstance(found, int | float) and not isinstance(found, bool) and meant != found:
        yield key, meant, found


def checked_params(params: Any, place: str) -> dict[str, Any]:
    """What a sweep varies: {key: its values, as a command line has them}; none where it is null."""
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise UserError(f"{place}: {params} must hold key: values")
    for key, value in params.items():
        if value is None or isinstance(value, dict | list):
            raise UserError(f"{place}.{key}: {value} must be values as on a command line, such as {key}: 0,1,2")
    return params


def read(file: Path) -> tuple[str, Any]:
    """Its text and what YAML makes of it, a key twice refused."""
    import yaml
    from omegaconf import OmegaConf

    try:
        text = file.read_text(encoding="utf-8")
        return text, OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{file}: {line}{error.problem or error.context}") from None
    except Exception as error:  # of YAML or OmegaConf, which fail in many ways on what a person wrote
        raise UserError(f"{file}: cannot be read ({str(error).splitlines()[0] if str(error) else error})") from None
