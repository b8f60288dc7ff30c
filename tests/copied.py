"""A copy of the repository with files that it has not, and what its commands print there."""

import os
import shutil
from pathlib import Path

import forked

ROOT = Path(__file__).parents[1]


def copied(folder, files):
    """files: {path below the root: its text}, each a new one.  Returns the folder."""
    for part in ("conf", "sweeps", "src"):
        shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", folder)
    for path, text in files.items():
        assert not (folder / path).exists()
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    return folder


def run(folder, *arguments):
    """What Python with these arguments prints, on the copy's source."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = forked.run(*arguments, cwd=folder, env=environment)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout
