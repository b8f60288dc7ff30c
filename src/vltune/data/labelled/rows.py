"""What the Arrow files of labelled images hold."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vltune.data.check.kind import Kind
from vltune.data.labelled.templates import filled, first

SCHEMA = pa.schema({"image": pa.binary(), "label": pa.int64(), "image_id": pa.string(), "split": pa.string()})


def problems(row: Mapping[str, Any], classes: Sequence[str | None]) -> Iterator[str]:
    """What is wrong with a row's columns."""
    if not 0 <= row["label"] < len(classes):
        yield f"label {row['label']} where there are {len(classes)} classes"


def prompt(manifest: Mapping[str, Any], name: str) -> str:
    """What a model is asked for a class, in the data set's first template."""
    return filled(first(manifest.get("data_set")), name)


KIND = Kind(SCHEMA, ("images",), None, problems, name="image_id", label="label", prompt=prompt)
