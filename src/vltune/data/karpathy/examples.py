"""What predictions on captions in Karpathy's splits are about."""

from __future__ import annotations

from vltune.data.examples import Asked, Examples, Shown


class Matches(Examples):
    """To a caption, by its number, the answer is `image N`; to an image, by its number, `caption N`."""

    text_column = "caption"

    def asked(self, id: int, prediction: str) -> Asked:
        if prediction.startswith("image "):
            return Asked(self.said(f"caption {id}"), {f"image {self._of_text(id)[0]}": 1.0})
        if not 0 <= id < len(self.table):
            raise KeyError(id)
        own = range(int(self.first[id]), int(self.first[id + 1]))
        return Asked(Shown(images=self.images(id)), {f"caption {number}": 1.0 for number in own})

    def said(self, prediction: str) -> Shown:
        what, _, number = prediction.partition(" ")
        if what == "image":
            return Shown(prediction, self.images(int(number)))
        row, item = self._of_text(int(number))
        return Shown(self.text(self.row(row, self.text_column), item))
