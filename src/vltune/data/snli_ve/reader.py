"""SNLI-VE: from Arrow files to examples."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vltune.data.reader import Reader, list_items, list_lengths
from vltune.data.snli_ve.prepare import LABELS, SCHEMA
from vltune.errors import UserError


class SNLIVEReader(Reader):
    """Hypotheses about images, from `snli_*.arrow` files of `prepare` or of METER's own `write_snli.py`.

    splits: for example ["snli_train"].  Arguments and examples: `Reader`'s; the text is the hypothesis.  An example also
    has `label`, the place in `LABELS`, METER's order: 0 contradiction, 1 neutral, 2 entailment.
    """

    schema = SCHEMA
    pattern = "snli_*.arrow"
    text_column = "sentences"
    other_columns = ("labels",)

    def index(self, tables: list[pa.Table]) -> dict[str, np.ndarray]:
        said = np.concatenate([list_lengths(pc.list_flatten(table[self.text_column])) for table in tables])
        if (said < 2).any():
            raise UserError(
                f"{self.data_dir}: {self.splits} lack a caption and a hypothesis in every item of sentences"
            )
        labels = np.concatenate([list_items(table["labels"]) for table in tables])
        if len(labels) != len(said) or not np.isin(labels, range(len(LABELS))).all():
            raise UserError(f"{self.data_dir}: {self.splits} lack a label 0, 1 or 2 for every sentence")
        return {"label": labels.astype(np.uint8)}

    def about(self, text: int, seed: int | None) -> dict[str, Any]:
        return {"label": int(self._index["label"][text])}

    def wordings(self, items: pa.Array) -> list[str]:
        return [text and text.strip() for text in pc.list_element(items, 1).to_pylist()]
