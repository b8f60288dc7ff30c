"""The groups that settings stand in."""

from __future__ import annotations

from functools import cache
from typing import Any

from vltune.settings.arguments import ARGUMENTS
from vltune.settings.backbone import BackboneSettings
from vltune.settings.check import declared
from vltune.settings.dataset import DatasetSettings
from vltune.settings.engine import Settings
from vltune.settings.kinds import Spec
from vltune.settings.match import MatchSettings
from vltune.settings.method import MethodSettings
from vltune.settings.task import TaskSettings

GROUPS: dict[str, Any] = {
    "dataset": DatasetSettings,
    "match": MatchSettings,
    "method": MethodSettings,
    "backbone": BackboneSettings,
    "task": TaskSettings,
    "engine": Settings,
    "logger": Spec,
}
BUILT = ("method", "backbone", "task", "logger")
"""Those whose settings are, but for those declared here, the arguments of a constructor."""


@cache
def declarations(group: str) -> dict[str, Any]:
    """{setting: its type} of what a group is declared to hold, and of the arguments that are declared by name."""
    return declared(ARGUMENTS.get(group)) | declared(GROUPS.get(group))
