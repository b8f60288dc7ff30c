"""What predictions on SNLI-VE are about."""

from __future__ import annotations

from vltune.data.examples import Examples
from vltune.data.snli_ve.prepare import LABELS


class Hypotheses(Examples):
    """An id counts the sentences."""

    text_column = "sentences"
    other_columns = ("labels",)

    def text(self, held: dict, item: int) -> str:
        return held["sentences"][item][1].strip()

    def answers(self, held: dict, item: int) -> dict[str, float]:
        return {LABELS[held["labels"][item]]: 1.0}
