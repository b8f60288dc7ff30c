"""What predictions on NLVR2 are about."""

from __future__ import annotations

from vltune.data.examples import Examples


class Statements(Examples):
    """An id counts the statements."""

    text_column = "questions"
    image_columns = ("image_0", "image_1")
    other_columns = ("answers",)

    def answers(self, held: dict, item: int) -> dict[str, float]:
        return {held["answers"][item]: 1.0}
