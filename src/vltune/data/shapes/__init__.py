"""The embedded world: a small VQAv2 of coloured shapes, generated on the spot in the official raw layout."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from vltune.errors import UserError

_ARGUMENTS = "shapes.json"


def ensure(
    data_dir: Path, seed: int = 0, images: Mapping[str, int] | None = None, questions_per_image: int = 4
) -> None:
    """Make sure that `data_dir` holds the world: `raw/` as `write_raw` leaves it, `vqav2/` as `prepare` does.

    images: how many of each split; None: `write_raw`'s.  Generates on first use (seconds) and returns at once after
    that.  Safe when several processes start together (the others wait) and when killed half-way (the folder appears
    complete or not at all).  UserError if the folder holds something else or was generated with other arguments.
    """
    from filelock import FileLock

    from vltune.data.shapes.vqav2 import IMAGES

    data_dir = Path(data_dir)
    wanted = {"seed": seed, "images": dict(images or IMAGES), "questions_per_image": questions_per_image}
    if _is_there(data_dir, wanted):
        return
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(data_dir.with_name(f".{data_dir.name}.lock")):
        if not _is_there(data_dir, wanted):
            _generate(data_dir, wanted)


def _is_there(data_dir: Path, wanted: dict) -> bool:
    try:
        found = json.loads((data_dir / _ARGUMENTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if data_dir.exists() and any(data_dir.iterdir()):
            raise UserError(f"{data_dir}: holds files that are not generated shapes; choose an empty folder") from None
        return False
    if found != wanted:
        raise UserError(f"{data_dir}: was generated with {found}, not {wanted}; choose another folder or delete it")
    return True


def _generate(data_dir: Path, wanted: dict) -> None:
    from vltune.data.shapes.vqav2 import write_raw
    from vltune.data.vqav2 import prepare

    partial = data_dir.with_name(f".{data_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_raw(partial / "raw", **wanted)
    prepare(partial / "raw", partial / "vqav2", min_answer_count=1, progress=False)
    (partial / _ARGUMENTS).write_text(json.dumps(wanted), encoding="utf-8")
    partial.replace(data_dir)
