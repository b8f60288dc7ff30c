"""Fabricated predictions.  They exist in tests alone."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

SCHEMA = pa.schema({"split": pa.string(), "id": pa.int64(), "prediction": pa.string(), "score": pa.float32()})


def predicted(file: Path, rows: list[tuple[str, int, str, float | None]]) -> Path:
    """rows: (split, id, prediction, score)"""
    columns = dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True))
    parquet.write_table(pa.table(columns, schema=SCHEMA), file)
    return file
