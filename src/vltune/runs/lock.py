"""Which process works on a run: a file in the run's folder that its owner renews, on one machine or on a network's.

It is safe where renaming and exclusive creation are atomic (local disks, NFS 3 and later, Lustre).  It needs no kernel
locks, which networks emulate or ignore, and no clocks that agree: ages are by the file system's own.  `filelock` takes over
no stale lock where two names cannot be exchanged in one step, as on NFS; `flufl.lock` compares the clocks of machines.

Renewed every BEAT seconds, a lock is stale once its process has ended on this machine, or once it is STALE seconds old and
not renewed while watched for SURE seconds.  An owner that stood still for so long finds itself replaced, and stops.
"""

from __future__ import annotations

import errno
import getpass
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from vltune.atomic import read_whole
from vltune.errors import UserError
from vltune.runs.signals import OwnedElsewhere

NAME = "running.json"
OWNER = {"host", "job", "user", "pid", "started", "phase"}  # of its owner, in every lock
BEAT, STALE = 5.0, 60.0  # seconds
PATIENCE = 5.0  # seconds, with a lock that is neither there nor not there: a file system may say so for good
SURE = 2 * BEAT + 2  # a file server whose clock is set makes all locks old at once, until their next beat


@dataclass(frozen=True)
class Holder:
    """Who has a run's lock.  content: as `Lock` writes it, empty where that cannot be read.  age: seconds since it was
    renewed."""

    content: dict[str, Any]
    age: float
    raw: bytes

    @property
    def dead(self) -> bool:
        """Whether its process was one of this machine and has ended."""
        content = self.content
        here = boot() is not None and content.get("boot") == boot()
        return here and "began" in content and has_ended(content["pid"], content["began"])

    @property
    def stale(self) -> bool:
        return self.dead or abs(self.age) > STALE  # below zero: the file server's clock was set back

    def __str__(self) -> str:
        content = self.content
        if not content.keys() >= OWNER:
            return "another process"
        name = f"SLURM job {content['job']}" if content["job"] else f"process {content['pid']}"
        counts = all(isinstance(content.get(key), int) for key in ("step", "total"))
        step = f" at {content.get('unit')} {content['step']:,} of {content['total']:,}" if counts else ""
        return f"{content['user']} on {content['host']}, {name}, since {content['started']} ({content['phase']}{step})"


def holder(folder: Path, now: float | None = None) -> Holder | None:
    """Who works on the run of this folder; None where nobody does.  UserError where that cannot be read.

    now: by the file system's clock; without it this machine's clock serves, and where it leaves a doubt the file system is
    asked, which costs a file."""
    try:
        found = _read(folder / NAME)
    except OSError as error:
        raise UserError(f"{folder / NAME}: cannot be read ({error.strerror})") from error
    if found is None:
        return None
    raw, renewed = found
    if now is None:
        now = time.time()
        if not 0 <= now - renewed <= STALE:
            now = _now_of(folder)
    return Holder(_content(raw), now - renewed, raw)


def _content(raw: bytes) -> dict[str, Any]:
    """What a lock says; empty where that is not what `Lock` writes.

    Where there are no hard links it is being written, or its writer was killed; or it is no lock at all."""
    try:
        content = json.loads(raw)
        whole = isinstance(content["pid"], int) and 0 < content["pid"] < 2**31
        timed = isinstance(content.get("seconds", 0.0), int | float)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    return content if whole and timed else {}


class Lock:
    """A run's lock: claimed when asked for, released at the end of the `with`.

    state: gives what stands beside the owner's name, such as how far it is; called in another thread.  lost: called there,
    with a line for a person, once another process has taken this one's place."""

    def __init__(self, folder: Path, state: Callable[[], dict[str, Any]], lost: Callable[[str], object]):
        self.folder, self.file, self.state, self.lost = folder, folder / NAME, state, lost
        self.owner = _this_process() | {"token": uuid.uuid4().hex}
        self.held = False
        self.reason = ""  # why this process has lost the lock, once it has
        self.replaced: dict[str, Any] = {}  # the last state of the owner whose place this took
        self._renewed = 0.0
        self._suspected: tuple[bytes, float] | None = None
        self._one_at_a_time, self._over = threading.Lock(), threading.Event()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error) -> None:
        self.release()

    def claim(self) -> Holder | None:
        """None: the lock is this process's now.  Else who has it; where that is `stale`, this must be asked again for up to
        SURE seconds until it is taken over, or renewed after all.  UserError where the folder cannot be written."""
        self.owner["started"] = _utc()
        patient = time.monotonic() + PATIENCE
        try:
            while True:
                try:
                    with self._written() as (mine, now):
                        if _exclusively(mine, self.file):
                            break
                        found = holder(self.folder, now)
                        if found is not None:
                            if not (self._is_sure(found) and self._replace(found, mine)):
                                return found
                            self.replaced = found.content
                            break
                except FileNotFoundError:
                    if time.monotonic() > patient:
                        raise
                # An owner has just ended, and took its lock away, or its empty folder.
                if time.monotonic() > patient:
                    raise UserError(f"{self.file}: is there and cannot be read: delete it")
                time.sleep(0.02)
        except OSError as error:
            reason = f"{self.folder}: {NAME} cannot be written here ({error.strerror or error})"
            raise UserError(f"{reason}: free space, or name another results_dir") from error
        self._clean(now - STALE)
        self.held, self._renewed = True, _elapsed()
        threading.Thread(target=self._beat_on, name="lock", daemon=True).start()
        return None

    def assure(self) -> None:
        """Before anything is written that another process may write too.  OwnedElsewhere where one has taken this one's
        place."""
        if self.held and _elapsed() - self._renewed > 3 * BEAT:  # this process stood still
            self._beat()
        if self.reason:
            raise OwnedElsewhere(self.reason)

    def release(self) -> None:
        self._over.set()
        with self._one_at_a_time, suppress(OSError):
            if self.held and self._is_mine():
                self._clean(math.inf)
                self.file.unlink()
                self.folder.rmdir()  # only where nothing else is in it
        self.held = False

    def _is_sure(self, found: Holder) -> bool:
        if found.dead or not found.stale:
            return found.dead
        if self._suspected is None or self._suspected[0] != found.raw:
            self._suspected = found.raw, time.monotonic()
        return time.monotonic() - self._suspected[1] > SURE

    def _replace(self, found: Holder, mine: Path) -> bool:
        with self._undisturbed(found.content.get("token", "unreadable")) as alone:
            if not alone or (now := _read(self.file)) is None or now[0] != found.raw:
                return False
            mine.replace(self.file)
            return True

    @contextmanager
    def _undisturbed(self, token: str) -> Iterator[bool]:
        """Whether, as long as this lasts, no other process replaces the owner of this token, nor this owner returns from
        a long absence."""
        file = self.folder / f".{NAME}.{token}.replaced"
        with self._written() as (mine, now):
            alone = _exclusively(mine, file)
        try:
            yield alone
        finally:
            # One whose process has ended, or that is old, is of one that was killed in here, which takes milliseconds.
            with suppress(FileNotFoundError):
                if alone or ((found := _read(file)) and Holder(_content(found[0]), now - found[1], found[0]).stale):
                    file.unlink()

    def _beat_on(self) -> None:
        while not self._over.wait(BEAT) and not self.reason:
            self._beat()

    def _beat(self) -> None:
        with self._one_at_a_time:
            if not self.held or self.reason:
                return
            try:
                if _elapsed() - self._renewed < STALE / 2:
                    kept = self._renew()
                else:
                    with self._undisturbed(self.owner["token"]) as alone:
                        kept = alone and self._is_mine() and self._renew()
                if not kept:
                    other = holder(self.folder)
                    who = f"taken over by {other}" if other else "taken over, and finished"
                    self.reason = f"{self.folder.name}: {who}, while this process stood still; it wrote nothing since"
            except (OSError, UserError):
                return  # a network that may be back at the next beat
        if self.reason:
            self.lost(self.reason)

    def _renew(self) -> bool:
        """Whether the lock is still this process's."""
        if self.file.exists() and not self._is_mine():
            return False
        try:
            with self._written() as (mine, _):
                if self._is_mine():
                    mine.replace(self.file)
                elif not _exclusively(mine, self.file):  # a person deleted it
                    return False
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            os.utime(self.file)  # a full disk takes this still
        self._renewed = _elapsed()
        return True

    def _is_mine(self) -> bool:
        found = _read(self.file)
        return found is not None and self.owner["token"].encode() in found[0]

    @contextmanager
    def _written(self) -> Iterator[tuple[Path, float]]:
        """A file that says what the lock is to say, and the file system's time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = _temporary(self.folder)
        try:
            file.write_text(json.dumps(self.owner | {"beat": _utc()} | self.state()))
            yield file, file.stat().st_mtime
        finally:
            file.unlink(missing_ok=True)

    def _clean(self, before: float) -> None:
        """Removes what killed processes left, where it was written before that time of the file system's.

        An owner may remove all: who asks for its lock meanwhile, and finds its own file gone, asks again.  But not what
        keeps others from replacing this owner while one does."""
        for left in self.folder.glob(f".{NAME}.*"):
            with suppress(FileNotFoundError):
                if self.owner["token"] not in left.name and left.stat().st_mtime < before:
                    left.unlink()


def _exclusively(content: Path, name: Path) -> bool:
    """Whether `name` was not there, and holds that file's content now: of several who ask at once, one is told so."""
    try:
        os.link(content, name)
        return True
    except OSError:
        if content.stat().st_nlink == 2:  # it was made, and a network lost the answer
            return True
    says = content.read_bytes()
    try:
        with name.open("xb") as file:  # no hard links here
            file.write(says)
    except FileExistsError:
        return False
    return True


def _read(file: Path) -> tuple[bytes, float] | None:
    """What a file holds and when it was written, by the file system's clock; None where there is none."""
    try:
        return read_whole(file)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _now_of(folder: Path) -> float:
    """The file system's time; this machine's where one may only read."""
    file = _temporary(folder)
    try:
        file.touch()
        return file.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            file.unlink()


def _temporary(folder: Path) -> Path:
    return folder / f".{NAME}.{uuid.uuid4().hex}.tmp"


def _elapsed() -> float:
    """Seconds, those included in which this process or this machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _this_process() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = str(os.getuid())
    pid = os.getpid()
    here = {"host": socket.gethostname(), "boot": boot(), "job": job()}
    return here | {"user": user, "pid": pid, "began": _state(pid)[1]}


def job() -> str | None:
    """This process's SLURM job, as `squeue` names it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")


@cache
def boot() -> str | None:
    """This machine since it started, and which of its processes this one can see; None where nothing tells."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def has_ended(pid: int, began: str | None) -> bool:
    """Whether this machine's process of that id, which `began` then, has ended; ids are used again.  False where nothing
    tells."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, of whom a cluster may hide more than that
        pass
    state, now = _state(pid)
    return state == "Z" or (now is not None and now != began)


def began(pid: int) -> str | None:
    """When this machine's process of that id began, in ticks since the machine did; None where nothing tells."""
    return _state(pid)[1]


def _state(pid: int) -> tuple[str | None, str | None]:
    """Of a process: Z where it has ended and was not waited for, and when it began, in ticks since the machine did."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None, None
    return state, rest[18]
