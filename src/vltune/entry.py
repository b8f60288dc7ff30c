"""What every command does with errors: one line and an exit status for what a user can mend, a traceback for bugs."""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vltune.errors import BadExampleError, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

USER_ERROR, FAILED = 2, 1
TRACEBACK = "VLTUNE_TRACEBACK"  # what the user set HYDRA_FULL_ERROR to, before it was set for Hydra


@contextmanager
def report_errors(conf: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Around a Hydra main.  Exit status: 2 where the command must be mended, 1 where the run failed."""
    os.environ.setdefault(TRACEBACK, os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, where it would print several lines and exit
    sweeps = any(a in ("-m", "--multirun") or a.startswith("+sweep=") for a in arguments)
    with passing_on_signals() if sweeps else nullcontext([]) as received:
        try:
            check_choices(conf, arguments)
            yield
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            if not received:
                leave(error)
    if received:
        print(f"stopped by {signal.Signals(received[0]).name}: the same command resumes the sweep", file=sys.stderr)
        sys.exit(128 + received[0])


@contextmanager
def passing_on_signals() -> Iterator[list[int]]:
    """In the parent of a sweep: asks the workers to stop, and waits for them, where joblib would kill them.

    They are sent SIGTERM whatever came, since a terminal gives a Ctrl-C to all processes and the second one stops at once.
    """
    received: list[int] = []

    def handle(signum: int, frame) -> None:
        received.append(signum)
        for worker in workers():
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    previous = {signum: signal.signal(signum, handle) for signum in signals}
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def workers() -> list[int]:
    """Process ids of the workers that Hydra's joblib launcher started in this process."""
    from joblib.externals.loky import reusable_executor

    return list(reusable_executor._executor._processes) if reusable_executor._executor else []


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


def settle_sweep(sweeps: Path, arguments: Sequence[str]) -> list[str]:
    """What to add to `+sweep=NAME key=value ...` so that a key given here is not swept as well."""
    import yaml

    given = {argument.partition("=")[0] for argument in arguments}
    names = [argument.partition("=")[2] for argument in arguments if argument.lstrip("+").startswith("sweep=")]
    files = [file for name in names if (file := sweeps / f"{name}.yaml").is_file()]
    swept = {key for file in files for key in yaml.safe_load(file.read_text())["hydra"]["sweeper"]["params"]}
    return [f"~hydra.sweeper.params.{key}" for key in sorted(swept & given)]


def check_choices(conf: Path, arguments: Sequence[str]) -> None:
    """`group=choice` arguments against the files that there are; Hydra's own message takes a screen."""
    for argument in arguments:
        group, equals, choices = argument.lstrip("+").partition("=")
        folder = conf / group
        if not equals or not group or not folder.is_dir():
            continue
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        for choice in filter(None, choices.split(",")):
            if choice not in known:
                near = difflib.get_close_matches(choice, known, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise UserError(f"{group}={choice}: no such {group}; {hint}there are {', '.join(known)}")
