"""What every command does with errors: one line and an exit status for what a user can mend, a traceback for bugs."""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vltune.errors import BadExampleError, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

USER_ERROR, FAILED = 2, 1
ALONE = "hydra.mode=RUN"  # a sweep's file asks Hydra for many runs, which one of them must not
QUESTIONS = {
    "-h",
    "--help",
    "-c",
    "--cfg",
    "-i",
    "--info",
    "--hydra-help",
    "--version",
    "--shell-completion",
}  # to Hydra
TRACEBACK = "VLTUNE_TRACEBACK"  # what the user set HYDRA_FULL_ERROR to, before it was set for Hydra


@contextmanager
def report_errors(conf: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Around a Hydra main.  Exit status: 2 where the command must be mended, 1 where the run failed."""
    os.environ.setdefault(TRACEBACK, os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, where it would print several lines and exit
    try:
        check_choices(conf, arguments)
        yield
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        leave(error)


def leave(error: Exception) -> NoReturn:
    """Ends the process: one line for what a user can mend, a traceback for a bug or where it was asked for."""
    if os.environ.get(TRACEBACK) == "1" or not is_users(error):
        traceback.print_exception(error)
    else:
        print(f"error: {one_line(error)}", file=sys.stderr)
    sys.exit(USER_ERROR if is_users(error) and not isinstance(error, BadExampleError) else FAILED)


def is_users(error: Exception) -> bool:
    """Whether the command, not the code, is at fault."""
    return isinstance(error, UserError) or type(error).__module__.split(".")[0] in ("hydra", "omegaconf")


def one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " | ".join(lines[:3])


def resolve(config: DictConfig) -> dict:
    """The configuration with every `${...}` filled in; UserError that lists what there is, where one names what is not."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationKeyError

    try:
        return OmegaConf.to_container(config, resolve=True)
    except InterpolationKeyError as error:
        written = OmegaConf.to_container(config)
        key = error.full_key
        found = next(re.finditer(r"key '([^']+)' not found", str(error)))[1].split(".")
        raise UserError(f"{key}={walk(written, key.split('.'))[0]}: {no_such(written, found)}") from None


def walk(config: dict, path: list[str]) -> tuple[object, list[str]]:
    """What lies at a path of keys, and the keys that are left where it ends early."""
    while path and isinstance(config, dict) and path[0] in config:
        config, path = config[path[0]], path[1:]
    return config, path


def no_such(config: dict, path: list[str]) -> str:
    there, left = walk(config, path)
    parent = ".".join(path[: len(path) - len(left)]) or "the configuration"
    return f"{parent} has no {left[0]}; it has {', '.join(there)}"


def of_sweep(arguments: Sequence[str]) -> list[str] | None:
    """The overrides, where many runs are asked for; None where Hydra has to see to it: one run, or a question to Hydra."""
    overrides = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    many = len(overrides) < len(arguments) or any(argument.startswith("+sweep=") for argument in overrides)
    if not many or ALONE in overrides or QUESTIONS & {*overrides}:
        return None
    if flags := [argument for argument in overrides if argument.startswith("-")]:
        raise UserError(f"{flags[0]}: a sweep takes no such option; it takes group=choice and key=value")
    return overrides


def check_choices(conf: Path, arguments: Sequence[str]) -> None:
    """`group=choice` arguments against the files that there are; Hydra's own message takes a screen."""
    for argument in arguments:
        group, equals, choices = argument.lstrip("+").partition("=")
        folder = conf / group
        if not equals or not group or not folder.is_dir() or "(" in choices:  # choice(...): parsed elsewhere
            continue
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        for choice in filter(None, choices.split(",")):
            if choice not in known:
                near = difflib.get_close_matches(choice, known, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise UserError(f"{group}={choice}: no such {group}; {hint}there are {', '.join(known)}")
