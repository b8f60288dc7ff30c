"""What every command does with errors and signals: one line and an exit status where a user can mend it, a traceback for
bugs."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vltune.catalogue import GROUP, families, methods
from vltune.errors import BadExampleError, UserError
from vltune.runs.signals import GRACE, Interrupted, OwnedElsewhere, heard, heed_signals
from vltune.terminal import open_streams, what_was_lost
from vltune.values import instead, key_of, printable, shown

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
LAUNCHER, LAUNCHERS = "hydra/launcher", "hydra.launcher."  # the group, and what begins the name of a launcher's setting
MANY = ("-m", "--multirun", "hydra.mode=MULTIRUN")
TRACEBACK = "VLTUNE_TRACEBACK"  # what the user set HYDRA_FULL_ERROR to, before it was set for Hydra
OF_ARGUMENTS = ("hydra", "omegaconf", "antlr4", "yaml")  # libraries whose errors are about what a person wrote


@contextmanager
def command(grace: float = GRACE) -> Iterator[None]:
    """Around all that a process does, from its first import on.

    Exit status: 2 where the command must be mended, 1 where the run failed, 128 + N where signal N ended it."""
    open_streams()
    faulthandler.enable(2)  # what native code ends tells where it was
    status, done = 0, lambda: None
    try:
        done = heed_signals(grace)
        os.environ.setdefault(TRACEBACK, os.environ.get("HYDRA_FULL_ERROR", "0"))
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, where it would print several lines and exit
        check_folder()
        yield
    except SystemExit as end:
        status = end.code
        if status and (stop := heard()) and stop.exit_code != status:  # as a library says of any interruption, or error
            leave(stop)
        raise
    except (Exception, KeyboardInterrupt, Interrupted, OwnedElsewhere) as error:
        status = None
        leave(error)
    finally:
        done()
        if lost := what_was_lost():
            print(f"error: {lost}", file=sys.stderr)
            if status == 0:
                sys.exit(USER_ERROR)


def check_folder() -> None:
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as error:
        gone = f"the folder that this is typed in is not there any more ({error.strerror})"
        raise UserError(f"{gone}: cd to another") from None


def leave(error: BaseException) -> NoReturn:
    """Ends the process: one line for a stop and what a user can mend, a traceback for a bug or where it was asked for."""
    if isinstance(error, Interrupted | OwnedElsewhere):
        if error.exit_code:
            print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    stop = heard()
    if stop and not isinstance(error, KeyboardInterrupt):  # which comes of it
        error = stop
    if isinstance(error, KeyboardInterrupt):
        print(one_line(error) or "stopped", file=sys.stderr)
        sys.exit(stop.exit_code if stop else 128 + signal.SIGINT)
    if os.environ.get(TRACEBACK) == "1" or not is_users(error):
        traceback.print_exception(error)
    else:
        print(f"error: {one_line(error)}", file=sys.stderr)
    sys.exit(USER_ERROR if is_users(error) and not isinstance(error, BadExampleError) else FAILED)


def is_users(error: BaseException) -> bool:
    """Whether the command, or the machine, and not the code is at fault."""
    return isinstance(error, UserError | OSError | MemoryError) or type(error).__module__.split(".")[0] in OF_ARGUMENTS


def one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    if isinstance(error, MemoryError):
        return "out of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(" | ".join(lines[:3]))


def resolve(config: DictConfig) -> dict:
    """The configuration with every `${...}` filled in.  UserError where one names what is not there, or itself."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        written = OmegaConf.to_container(config)
        named = re.search(r"key '([^']+)' not found", str(error)) if isinstance(error, InterpolationKeyError) else None
        reason = no_such(written, named[1].split(".")) if named else str(error).splitlines()[0]
        key = error.full_key or "the configuration"
        raise UserError(f"{key}={shown(walk(written, key.split('.'))[0])}: {reason}") from None


def walk(config: dict, path: list[str]) -> tuple[object, list[str]]:
    """What lies at a path of keys, and the keys that are left where it ends early."""
    while path and isinstance(config, dict) and path[0] in config:
        config, path = config[path[0]], path[1:]
    return config, path


def no_such(config: dict, path: list[str]) -> str:
    there, left = walk(config, path)
    parent = ".".join(path[: len(path) - len(left)]) or "the configuration"
    return (
        f"{parent} has no {left[0]}; it has {', '.join(map(str, there)) if isinstance(there, dict) else 'no settings'}"
    )


def of_sweep(arguments: Sequence[str]) -> list[str] | None:
    """The overrides, where many runs are asked for; None where Hydra has to see to it: one run, or a question to Hydra."""
    overrides = [argument for argument in arguments if argument not in MANY]
    many = len(overrides) < len(arguments) or any(argument.startswith("+sweep=") for argument in overrides)
    return None if not many or ALONE in overrides or QUESTIONS & {*overrides} else overrides


def check_options(overrides: Sequence[str]) -> None:
    if options := [override for override in overrides if override.startswith("-")]:
        raise UserError(f"{options[0]}: a sweep takes no such option; it takes group=choice and key=value")


def check_single(arguments: Sequence[str]) -> None:
    """UserError where one run is told how several are started: it would run here all the same."""
    if {ALONE, *QUESTIONS} & {*arguments}:
        return
    for argument in arguments:
        if (key := key_of(argument)) == LAUNCHER or key.startswith(LAUNCHERS):
            how = "add -m, also for one run, or type vltune sweep submit; else leave it out"
            raise UserError(f"{shown(argument)}: without -m one run starts here, and no launcher; {how}")


def check_choices(conf: Path, arguments: Sequence[str], many: bool = False) -> None:
    """`group=choice` arguments against the files that there are; Hydra's own message takes a screen.

    many: whether they are of many runs, which may name a family of methods (`vltune.catalogue`) in the place of each."""
    for argument in arguments:
        group, equals, choices = argument.lstrip("+").partition("=")
        folder = conf / (name := group.partition("@")[0])
        if not equals or not name or not folder.is_dir() or "(" in choices:  # choice(...): parsed elsewhere
            continue
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        for choice in (each.strip(" \"'") for each in choices.split(",")):
            if choice in known:
                continue
            of = families(methods(conf)) if name == GROUP else {}
            if choice not in of:
                raise UserError(
                    f"{shown(argument)}: no such {name}; {instead(choice, [*known, *(of if many else ())])}"
                )
            if not many:
                raise UserError(f"{shown(argument)}: stands for several ({', '.join(of[choice])}), which need -m")
