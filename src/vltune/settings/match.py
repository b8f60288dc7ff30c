"""`match`: as many parameters, or MACs, as another method."""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired, TypedDict

from vltune.settings.kinds import Count, Positive, Spec


class MatchSettings(TypedDict):
    by: Literal["params", "macs"]
    """What is made equal by choosing the method's size: its parameters, or the MACs that it adds."""
    budget: Positive | None
    """How many of them, or null for as many as the reference has."""
    reference: Spec
    """The method that sets the budget."""
    reached: NotRequired[Count]
    """How many of them the chosen size has; a record says it."""
