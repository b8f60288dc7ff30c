"""Where features of frozen towers are kept: Arrow files, found by content, trusted only after every row was read.

A store is a folder of files that belong to one modality, tower, transform and arithmetic.  A file appears whole and is
never changed; what else a run needs goes into further files.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from vltune.data.arrow import open_table, write_table
from vltune.errors import UserError
from vltune.runs.turn import turn

VERSION = 1
COLUMNS = {"key": pa.binary(32), "data": pa.binary(), "crc32": pa.uint32()}  # the checksum is over key and data


class Store:
    """Features by key, memory-mapped and opened anew in each process.

    about: what they belong to.  probe: (B, N, width), the tower's output for an input that is always the same.  Another
    architecture, other arithmetic or other code gives other bits and with them another store.
    """

    def __init__(self, root: Path, about: dict[str, str], probe: Tensor):
        _, self.probe_tokens, self.width = probe.shape
        self.dtype = probe.dtype
        about = about | {"version": str(VERSION), "probe": sha256(raw(probe)).hexdigest()}
        about |= {"dtype": str(self.dtype), "width": str(self.width)}
        self.schema = pa.schema(COLUMNS, about)
        name = sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = root / f"{about['modality']}-{name}"
        self.paths: list[Path] = []
        self.row: dict[bytes, int] = {}  # counted over all paths
        self.rows = 0
        self._process, self._opened = None, None

    def get(self, key: bytes) -> Tensor | None:
        """(N, width), or None where there is none."""
        if (row := self.row.get(key)) is None:
            return None
        if self._process != os.getpid():
            tables = [open_table(path, list(COLUMNS)) for path in self.paths]
            self._process, self._opened = os.getpid(), pa.concat_tables(tables)["data"]
        data = np.frombuffer(self._opened[row].as_buffer(), np.uint8)
        return torch.from_numpy(data.copy()).view(self.dtype).view(-1, self.width)

    def load(self) -> dict[Path, str]:
        """Takes in the files that are there and not yet known; returns what is wrong with those that it does not take."""
        wrong = {}
        for path in sorted(self.folder.glob("*.arrow")):
            try:
                self.take([path.name])
            except (UserError, pa.ArrowException) as error:
                wrong[path] = str(error).removeprefix(f"{path}: ").split(";")[0]
        return wrong

    def names(self) -> list[str]:
        """Of the files that are taken in."""
        return [path.name for path in self.paths]

    def take(self, names: Sequence[str]) -> None:
        """Takes in files that are not yet known.  UserError or ArrowException for the first that is not whole or belongs
        elsewhere."""
        for path in (self.folder / name for name in names if self.folder / name not in self.paths):
            keys = self.checked(path)
            self.row |= zip(keys, range(self.rows, self.rows + len(keys)), strict=True)
            self.rows += len(keys)
            self.paths.append(path)
            self._process = None

    def checked(self, path: Path) -> list[bytes]:
        """The keys of a file whose every row is whole."""
        table = open_table(path, list(COLUMNS))
        if not table.schema.equals(self.schema, check_metadata=True):
            raise UserError("belongs to another tower, transform or precision")
        table.validate(full=True)
        keys = table["key"].to_pylist()
        for row, (key, data, crc) in enumerate(zip(keys, table["data"], table["crc32"], strict=True)):
            if zlib.crc32(data.as_buffer(), zlib.crc32(key)) != crc.as_py():
                raise UserError(f"row {row} is damaged")
        return keys

    def locked(self, check: Callable[[], None]) -> AbstractContextManager[None]:
        """One process at a time; the others wait, and call `check` every second."""
        fix = "name another engine.features_dir, or set engine.cache_features=false"
        return turn(self.folder, check, "features", fix)

    def clean(self) -> None:
        """Deletes what is damaged or belongs elsewhere, and what killed processes left.  Only where `locked`."""
        for path, what in self.load().items():
            print(f"{path}: {what}: deleted, to be computed anew", file=sys.stderr)
            path.unlink()
        for left in self.folder.glob(".*.tmp"):
            left.unlink()

    def check_room(self, needed: int, what: str) -> None:
        """Raises UserError where `needed` bytes exceed what the disk has."""
        if needed > (free := shutil.disk_usage(self.folder).free):
            raise UserError(
                f"{self.folder}: the features of {what} take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
                "free space, name another engine.features_dir, or set engine.cache_features=false"
            )

    def write(self, batches: Iterator[tuple[list[bytes], list[Tensor]]]) -> str | None:
        """Adds a file of (keys, features); its name, which is never used again as other processes may be reading by it, or
        None where there is nothing to be kept."""
        path = self.folder / f"{uuid.uuid4().hex}.arrow"
        if not write_table(path, self.schema, (self.batch(*batch) for batch in batches)):
            path.unlink()
            return None
        return path.name

    def batch(self, keys: list[bytes], features: list[Tensor]) -> pa.RecordBatch:
        data = [raw(each) for each in features]
        crc = [zlib.crc32(each, zlib.crc32(key)) for key, each in zip(keys, data, strict=True)]
        columns = zip((keys, data, crc), COLUMNS.values(), strict=True)
        return pa.record_batch([pa.array(values, kind) for values, kind in columns], schema=self.schema)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": None, "_opened": None}


def raw(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
