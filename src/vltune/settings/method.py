"""`method`: what every method's configuration may hold beside the arguments of its constructor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Interval
from typing_extensions import NotRequired, TypedDict

from vltune.catalogue import COLOURS
from vltune.settings.kinds import OPEN, Before, Name, NotDecisive, NotItself, Positive, Spec, Words


class MethodSettings(TypedDict):
    __pydantic_config__ = OPEN

    name: Name
    """What records and tables call it."""
    sites_in: NotRequired[str]
    """Where the method acts: in the fusion, in the text or the image tower, in both towers, or in all of them."""
    always_trained: NotRequired[Annotated[Literal["paper", "head_only"], Before("paper")]]
    """What is trained with every method: token types, class token, pooler and head as in the paper, or the head alone."""
    methods: NotRequired[Mapping[str, Spec]]
    """Of a stack: its methods by name, each with its own settings, in the order in which they act."""
    label: NotRequired[Annotated[str, NotDecisive()]]
    """How tables and figures name it."""
    order: NotRequired[Annotated[int | None, NotDecisive()]]
    """Its place among the rows of a table."""
    families: NotRequired[Annotated[Words, NotDecisive()]]
    """The sets of methods that it belongs to, which a table or a sweep names."""
    colour: NotRequired[Annotated[Annotated[int, Interval(ge=0, le=COLOURS - 1)] | None, NotDecisive()]]
    """Its colour in figures, as a place in their palette, or null for grey."""
    rates: NotRequired[Annotated[Mapping[str, Positive], NotItself()]]
    """The learning rates that are tried when one is chosen for it."""
