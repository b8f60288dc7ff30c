"""`match`: as many parameters, or MACs, as another method."""

from __future__ import annotations

from typing import Annotated, Literal

from typing_extensions import NotRequired, TypedDict

from vltune.settings.kinds import Count, NotItself, Positive, Spec


class MatchSettings(TypedDict):
    by: Annotated[Literal["params", "macs"], NotItself()]
    """What is made equal by choosing the method's size: its parameters, or the MACs that it adds."""
    budget: Annotated[Positive | None, NotItself()]
    """How many of them, or null for as many as the reference has."""
    reference: Annotated[Spec, NotItself()]
    """The method that sets the budget."""
    reached: NotRequired[Annotated[Count, NotItself()]]
    """How many of them the chosen size has; a record says it."""
