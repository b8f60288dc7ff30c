"""What each sort of runs is built of, as `check_jobs` found it: kept, since finding it means importing torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import omegaconf

import vltune
from vltune.assemble.checkpoint import CHECKPOINT, stamped
from vltune.assemble.weights import weight_files
from vltune.atomic import replacing
from vltune.errors import UserError
from vltune.experiment.readiness import check_jobs
from vltune.sweep.processes import copies

Check = Callable[[Sequence[Sequence[str]], Sequence[dict]], list[dict]]
KEPT = 4096  # sorts, of some 3 kB each


@contextmanager
def checks(folder: Path) -> Iterator[Check]:
    """`check_jobs`, which asks of no sort of runs twice, as long as code, packages and machine are the same.

    A copy of this process imports what runs are built of, which takes longer than all the rest of planning, and this
    process can do without: from now on where nothing is kept in the folder, else once something is not."""
    if "torch" in sys.modules:
        yield check_jobs
        return
    file = folder / f"checked-{stamp()}.json"
    kept = read(file)
    with ExitStack() as stack:

        def begin():
            pool = stack.enter_context(copies(1))
            pool.submit(import_module, "vltune.model")
            return pool

        pool = None if kept else begin()

        def check(jobs: Sequence[Sequence[str]], configs: Sequence[dict]) -> list[dict]:
            names = [sort(*each) for each in zip(jobs, configs, strict=True)]
            if new := [number for number, name in enumerate(names) if name not in kept]:
                asked = [[each[number] for number in new] for each in (jobs, configs)]
                found = (pool or begin()).submit(check_jobs, *asked).result()
                kept.update({names[number]: config for number, config in zip(new, found, strict=True)})
                keep(file, kept)
            return [kept[name] | {"seed": config["seed"]} for name, config in zip(names, configs, strict=True)]

        yield check


def sort(job: Sequence[str], config: dict) -> str:
    """The name of all that a run is judged by, which its seed is not; and its weights are where it takes sizes of them."""
    typed = sorted(each for each in job if not each.startswith("seed="))
    of_file = weights_stamp(config) if config["backbone"].get("model") == CHECKPOINT else None
    return sha256(json.dumps([typed, sorted((config | {"seed": None}).items()), of_file]).encode()).hexdigest()


def weights_stamp(config: dict) -> tuple[str, int, int] | None:
    """None where they are not there, which the check tells."""
    with suppress(UserError):
        files = weight_files(config["weights"], config["backbone"])
        return next(((str(file), size, time) for file, size, time in map(stamped, files.values())), None)


def read(file: Path) -> dict[str, dict]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):  # none, or damaged
        return {}
    return found if isinstance(found, dict) else {}


def keep(file: Path, kept: dict[str, dict]) -> None:
    """Where that can be.  What is kept of code that is no more goes."""
    with suppress(UserError), replacing(file) as temporary:
        temporary.write_text(json.dumps(dict(list(kept.items())[-KEPT:])))
    for other in file.parent.glob("checked-*.json"):
        if other != file:
            other.unlink(missing_ok=True)


def stamp() -> str:
    """Of the code, the packages and the memory of this machine."""
    package = Path(vltune.__file__).parent
    seen = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in sorted(package.rglob("*.py"))]
    packages = Path(omegaconf.__file__).parent.parent.stat().st_mtime_ns
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sha256(json.dumps([sys.version, packages, memory, seen]).encode()).hexdigest()[:16]
