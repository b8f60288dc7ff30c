"""What `vltune check` looks for in a data set's Arrow files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class Kind:
    """counted: what the manifest calls rows and texts, or rows alone without a `text_column`.  problems: what is wrong with
    a row.  name: the column that tells rows apart, if a score follows from it.  may_be_empty: splits.  label: the column of
    a row's class, by its place in the manifest's `classes`.  prompt: what a model is asked for a class, by manifest, name.
    notes: what is well to know of a folder, by manifest and rows of each split.
    """

    schema: pa.Schema
    counted: tuple[str, ...]
    text_column: str | None
    problems: Callable[[Mapping[str, Any], Sequence[str | None]], Iterator[str]]
    name: str | None = None
    may_be_empty: tuple[str, ...] = ()
    label: str | None = None
    prompt: Callable[[Mapping[str, Any], str], str] | None = None
    notes: Callable[[Mapping[str, Any], Mapping[str, int]], Iterator[str]] | None = None

    @property
    def columns(self) -> pa.Schema:
        """Those that are looked at: METER's own files lack `split`, which nobody reads."""
        return pa.schema(column for column in self.schema if column.name != "split")

    @property
    def images(self) -> list[str]:
        return [column.name for column in self.schema if column.type == pa.binary()]
