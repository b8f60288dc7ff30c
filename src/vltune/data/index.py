"""What follows from files alone and takes a pass over them: computed once, kept beside them, memory-mapped afterwards."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vltune.data.arrow import write_table
from vltune.errors import UserError

FOLDER = ".index"
_VERSION = 3  # of everything that computes an index: what is kept under another is not read
_OF = b"of"  # in an index's metadata: the version, and the data files by name, size and time of change


class Index:
    """Arrays of numbers by name.  Mapped ones are mapped anew where the index was pickled to."""

    def __init__(self, arrays: dict[str, np.ndarray], file: Path | None):
        self._arrays, self._file = arrays, file

    def __getitem__(self, name: str) -> np.ndarray:
        if self._arrays is None:
            self._arrays = _mapped(self._file)
        return self._arrays[name]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({} if self._file is None else {"_arrays": None})


def open_index(files: Sequence[Path], about: str, build: Callable[[], Mapping[str, np.ndarray]]) -> Index:
    """What `build` gives, from `.index/` in the folder of the files where it is kept already, else kept there now.

    It is kept for files of these names, sizes and times of change, and what `about` says of how it is computed.  One that
    cannot be read is computed anew; where nothing can be written it stays in memory.  With a new one those go that are of
    files as they no longer are.
    """
    of = _stand(files)
    file = files[0].parent / FOLDER / f"{sha256(json.dumps([about, of]).encode()).hexdigest()[:16]}.arrow"
    with suppress(OSError, ValueError, pa.ArrowException):
        return Index(_mapped(file), file)
    arrays = {name: np.ascontiguousarray(array) for name, array in build().items()}
    try:
        _write(file, arrays, of)
        _remove_stale(file.parent)
        return Index(_mapped(file), file)
    except (UserError, OSError):
        return Index(arrays, None)


@cache
def code_of(kind: type, base: type) -> str:
    """A hash of the files that a class and what stands between it and a base are written in, as they are when it is first
    asked for; nothing of a class without a file, as in a notebook, and of vltune's own, whose changes `_VERSION` counts."""
    sha = sha256()
    for each in kind.__mro__[: kind.__mro__.index(base)]:
        if each.__module__.partition(".")[0] == __name__.partition(".")[0]:
            continue
        with suppress(TypeError, OSError):
            sha.update(Path(inspect.getfile(each)).read_bytes())
    return sha.hexdigest()


def _stand(files: Sequence[Path]) -> list:
    return [_VERSION, *([file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files)]


def _remove_stale(folder: Path) -> None:
    """A process that has one of them mapped keeps it."""
    for file in folder.glob("*.arrow"):
        with suppress(OSError):
            if not _holds(file):
                file.unlink()


def _holds(file: Path) -> bool:
    """Are the data files as they were when this index was made?"""
    try:
        with pa.memory_map(str(file)) as source:
            of = json.loads(pa.ipc.open_file(source).schema.metadata[_OF])
        return of == _stand([file.parents[1] / name for name, *_ in of[1:]])
    except (FileNotFoundError, ValueError, TypeError, KeyError, pa.ArrowException):
        return False


def _write(file: Path, arrays: Mapping[str, np.ndarray], of: list) -> None:
    """One row of lists, so that arrays of different lengths go into one file, which appears whole."""
    columns = {name: pa.LargeListArray.from_arrays([0, len(array)], pa.array(array)) for name, array in arrays.items()}
    batch = pa.record_batch(columns).replace_schema_metadata({_OF: json.dumps(of)})
    write_table(file, batch.schema, [batch])


def _mapped(file: Path) -> dict[str, np.ndarray]:
    with pa.memory_map(str(file)) as source:
        [batch] = pa.ipc.open_file(source).read_all().to_batches()
    return {name: batch[name].values.to_numpy() for name in batch.schema.names}
