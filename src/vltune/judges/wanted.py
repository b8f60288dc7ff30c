"""Pictures that are wanted of a model."""

from __future__ import annotations

from dataclasses import dataclass

SUBJECT, CLASS = "subject", "class"
"""What a picture is about: the prompt with the token in it, or without."""


@dataclass(frozen=True)
class Wanted:
    """A picture to paint.  id: of its prompt and seed, the same with the token (about the subject) and without (about the
    class)."""

    id: int
    about: str
    prompt: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.about}-{self.id:04}.png"
