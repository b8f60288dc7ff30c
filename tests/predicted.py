"""Fabricated predictions.  They exist in tests alone."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

SCHEMA = pa.schema({"split": pa.string(), "id": pa.int64(), "prediction": pa.string(), "score": pa.float32()})
OWN = pa.schema([*SCHEMA, pa.field("target", pa.string()), pa.field("fold", pa.int32())])


def predicted(file: Path, rows: list[tuple[str, int, str, float | None]]) -> Path:
    """rows: (split, id, prediction, score); `image 3, fold 1` has target image and fold 1, as retrieval's rows."""
    parquet.write_table(pa.Table.from_pylist([row_of(*row) for row in rows], schema=OWN), file)
    return file


def row_of(split: str, id: int, prediction: str, score: float | None) -> dict:
    said, _, fold = (prediction or "").partition(", fold ")
    row = {"split": split, "id": id, "prediction": prediction and said, "score": score}
    return row | {"target": said.split(" ")[0], "fold": int(fold) if fold else None}
