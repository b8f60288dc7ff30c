"""What is wrong with `group=choice` and `key=value` arguments, in one line that names the argument and how it is meant."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.command_line import one_line, walk
from vltune.errors import UserError
from vltune.settings.run import HONOURED
from vltune.values import instead, key_of, shown

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


@contextmanager
def explained(project: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Around what composes a configuration from the arguments: their errors are UserErrors that name the argument.

    project: the folder of conf/."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        typed = [argument for argument in arguments if not argument.startswith("-")]
        if (told := what_is_wrong(project, typed)) is None:  # nothing is wrong with these
            raise
        raise UserError(told) from error


@contextmanager
def of_libraries() -> Iterator[None]:
    """Within it, what Hydra, and what it is built on, has against what a person wrote is a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(one_line(error) or type(error).__name__) from error


def what_is_wrong(project: Path, typed: Sequence[str]) -> str | None:
    """Of the first argument that Hydra cannot do with; None where it can with all."""
    for argument in typed:
        try:
            override = parse(argument)
        except UserError as error:
            return str(error)
        if override.is_sweep_override():
            return several(argument)
    groups_first = sorted(typed, key=lambda argument: not (project / "conf" / group_of(argument)).is_dir())
    for number, argument in enumerate(groups_first):
        try:
            composed(project, groups_first[: number + 1])
        except Exception as error:
            return refused(project, argument, groups_first[:number], error)
    return None


@contextmanager
def conf(project: Path) -> Iterator[None]:
    """Within it, Hydra composes from the project's conf/, also where it runs already."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    if not (project / "conf" / "run.yaml").is_file():
        raise UserError(f"{project}: holds no conf/run.yaml; give the folder of run.py with --project")
    around, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(str((project / "conf").resolve()), version_base="1.3", job_name="run"):
            yield
    finally:
        GlobalHydra.instance().hydra = around


def composed(project: Path, typed: Sequence[str]) -> dict:
    """The configuration that the arguments make, unresolved, with Hydra's own in `hydra`."""
    from hydra import compose
    from omegaconf import OmegaConf

    with conf(project):
        return OmegaConf.to_container(compose("run", list(typed), return_hydra_config=True))


@cache
def parse(argument: str) -> Override:
    """UserError that names the argument, and shows how it is quoted where that is all that it lacks.

    Hydra takes a millisecond for each, and a thousand runs have few different ones."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        return OverridesParser.create().parse_override(argument)
    except Exception as error:  # of Hydra's grammar, or of what it is built on
        if "=" not in argument and not argument.startswith("~"):
            raise UserError(f"{shown(argument) or repr('')}: is no group=choice or key=value") from None
        lines = str(error).splitlines() or [type(error).__name__]
        reason = next((line for line in lines if not line.startswith("Error parsing")), lines[0])
        quotes = f"in quotes: {again}" if (again := quoted(argument)) else "a list is typed [a,b], others {a: 1, b: 2}"
        raise UserError(f"{shown(argument)}: cannot be read ({shown(reason.strip())}); {quotes}") from None


def quoted(argument: str) -> str | None:
    """`key=value` as a shell and Hydra take it where the value is a text; None where no quotes mend it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    key, _, value = argument.partition("=")
    if value.startswith(("[", "{")) or not value.isprintable():
        return None
    mark = "'" if '"' in value and "'" not in value else '"'
    inside = re.sub(rf"(\\*)({mark}|$)", lambda found: found[1] * 2 + ("\\" + mark if found[2] else ""), value)
    text = f"{key}={mark}{inside.replace('${', chr(92) + '${')}{mark}"
    try:
        read = OverridesParser.create().parse_override(text).value()
        if OmegaConf.to_container(OmegaConf.create({"value": read}), resolve=True) != {"value": value}:
            return None
    except Exception:
        return None
    return shlex.quote(text)


def several(argument: str) -> str:
    """One run takes one value of each."""
    again = quoted(argument) if "," in argument.partition("=")[2] else None
    return f"{shown(argument)}: several values, which need -m" + (f"; one value in quotes: {again}" if again else "")


def refused(project: Path, argument: str, before: Sequence[str], error: Exception) -> str:
    """Why an argument does not compose with those before it, which do."""
    said = " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
    key = key_of(argument)
    if said.startswith("Could not append") and "@" not in key:
        said = f"{key} is there already; give it without the +"
    elif said.startswith("Could not override") and (project / "conf" / key).is_dir():
        said = f"a run has no {key} unless it is added; give it with a +"
    elif re.match(r"Could not (override|delete)", said) and "@" not in key:
        said = unknown(project, composed(project, before), key) or said
        is_honoured = any(key == each or key.startswith(f"{each}.") for each in HONOURED)
        if "mode=eval" in before and is_honoured and " has no " in said and not argument.startswith("~"):
            said += f"; where the record's {key.partition('.')[0]} has it: +{argument.lstrip('+')}"
    return f"{shown(argument)}: {said}"


def unknown(project: Path, tree: dict, key: str) -> str | None:
    """That there is no such key, and which was perhaps meant: one beside it, or one of that name elsewhere."""
    place, left = walk(tree, parts := key.split("."))
    if not left:
        return None
    where, part = ".".join(parts[: -len(left)]), left[0]
    if not isinstance(place, dict):
        return f"{where} is {shown(place)}, which holds no {part}"
    groups = [folder.name for folder in sorted((project / "conf").iterdir()) if folder.is_dir()] if not where else []
    known = [each for each in dict.fromkeys([*map(str, place), *groups]) if each != "_target_"]
    lacks = f"{where or 'the configuration'} has no {part}"
    if difflib.get_close_matches(part, known, n=1):
        return f"{lacks}; {instead(part, known)}"
    elsewhere = [
        name for name in leaves(tree) if name.rpartition(".")[2] == parts[-1] and not name.startswith("hydra.")
    ]
    hint = f"did you mean {min(elsewhere, key=lambda name: name.count('.'))}? " if elsewhere else ""
    return f"{lacks}; {hint}there are {', '.join(known)}"


def leaves(tree: dict, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")


def group_of(argument: str) -> str:
    """What stands before `=` and before a package, without marks: a group's folder, or a key."""
    return key_of(argument).partition("@")[0] or "="
