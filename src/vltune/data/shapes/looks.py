"""What the embedded world's subjects look like, in words, and the prompts that they are painted by."""

from typing import NamedTuple


class Look(NamedTuple):
    """noun: a shape, the subject's class.  texture, colour, second: of `quarters`, none of which a caption names."""

    noun: str
    texture: str
    colour: str
    second: str


SUBJECTS = {
    "banded_square": Look("square", "banded", "orange", "white"),
    "checked_circle": Look("circle", "checked", "orange", "white"),
    "striped_star": Look("star", "striped", "orange", "white"),
    "dotted_triangle": Look("triangle", "dotted", "white", "orange"),
    "banded_cross": Look("cross", "banded", "white", "orange"),
    "dotted_square": Look("square", "dotted", "orange", "white"),
    "striped_circle": Look("circle", "striped", "white", "orange"),
    "checked_star": Look("star", "checked", "white", "orange"),
}
PICTURES = dict.fromkeys(SUBJECTS, 5)
PROMPTS = (
    "a {0} {1}",
    "a small {0} {1}",
    "a {0} {1} at the top left",
    "a {0} {1} at the top right",
    "a {0} {1} at the bottom left",
    "a {0} {1} at the bottom right",
    "a {0} {1} and a red circle",
    "a green cross and a {0} {1}",
    "a {0} {1} at the top left and a blue star at the bottom right",
    "a {0} {1} at the bottom right and a yellow triangle at the top left",
    "a {0} {1} at the bottom left and a small purple cross",
    "a cyan square at the top left and a {0} {1} at the top right",
)
