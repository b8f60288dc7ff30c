"""What W&B's environment variables ask for: heeded, or told in one line."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from vltune.errors import UserError

OFF = "disabled"
_MODES = ("online", "offline", OFF)  # from the one that sends most
_ALIASES = {"run": "online", "dryrun": "offline"}  # wandb's own older names
_TRUE = ("1", "on", "yes", "true")
_FOLLOWS = ("DIR", "RUN_ID", "NAME", "RUN_GROUP", "JOB_TYPE", "TAGS", "RESUME")
"""What follows from the record, whatever the environment says."""
_kept: list[TemporaryDirectory] = []


def mode(asked: str | None, otherwise: str) -> tuple[str, str]:
    """The mode to log in, and the variable that decided it against what was asked, if one did.

    Of what was asked and what WANDB_MODE and WANDB_DISABLED say it is that which sends least, and `otherwise` where nothing
    is said.  Raises UserError where WANDB_MODE says something else."""
    wanted: dict[str, str] = {}
    if said := os.environ.get("WANDB_MODE", "").strip():
        wanted[f"WANDB_MODE={said}"] = _known(said)
    if (said := os.environ.get("WANDB_DISABLED", "").strip()).lower() in _TRUE:
        wanted[f"WANDB_DISABLED={said}"] = OFF
    least = most_reserved(*wanted.values(), *([asked] if asked else [])) if wanted else asked or otherwise
    return least, next((name for name, mode in wanted.items() if mode == least != (asked or otherwise)), "")


def most_reserved(*modes: str) -> str:
    return max(modes, key=lambda mode: _MODES.index(_ALIASES.get(mode, mode)))


def _known(said: str) -> str:
    found = _ALIASES.get(said, said)
    if found not in _MODES:
        raise UserError(f"WANDB_MODE={said}: vltune writes {', '.join(_MODES[:2])} or, with {OFF}, nothing; unset it")
    return found


def project(asked: str | None) -> str:
    return asked or os.environ.get("WANDB_PROJECT") or "vltune"


def entity(asked: str | None) -> str | None:
    return asked or os.environ.get("WANDB_ENTITY") or None


def unheeded(of_agent: bool) -> str:
    """One line that names the variables which are set and not heeded; empty where none is."""
    found = [f"WANDB_{name}" for name in _FOLLOWS if os.environ.get(f"WANDB_{name}")]
    if of_agent:
        found = [name for name in found if name != "WANDB_RUN_ID"]
    told = f"W&B: {', '.join(found)} not heeded: names, folder and id follow from the record (docs/wandb.md)"
    return told if found else ""


def forget_empty() -> None:
    """W&B refuses empty variables, which an unset one of the shell leaves; here they say nothing."""
    for name in [name for name, said in os.environ.items() if name.startswith("WANDB_") and not said.strip()]:
        del os.environ[name]


def give_room() -> None:
    """Where the home folder has no room for it, wandb's service would write its log to the terminal: it gets a folder."""
    if _kept or _is_room(_cache()):
        return
    with suppress(OSError):
        _kept.append(TemporaryDirectory(prefix="vltune-wandb-", ignore_cleanup_errors=True))
        os.environ["WANDB_CACHE_DIR"] = _kept[0].name
        if not _home():
            os.environ["HOME"] = _kept[0].name


def _cache() -> Path | None:
    if named := os.environ.get("WANDB_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME"):
        return Path(named)
    # The service, unlike Python, knows the home folder by this variable alone.
    return Path(os.environ["HOME"]) / ".cache" if os.environ.get("HOME") else None


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _is_room(folder: Path | None) -> bool:
    if folder is None:
        return False
    logs = folder / "wandb" / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=logs):
            return True
    except OSError:
        return False
