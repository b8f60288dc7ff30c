"""A run's configuration in its typed parts, which all that builds, trains and evaluates is handed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from vltune.settings.backbone import BackboneSettings
from vltune.settings.check import declared, marks
from vltune.settings.dataset import DatasetSettings
from vltune.settings.engine import Settings
from vltune.settings.groups import GROUPS
from vltune.settings.kinds import Before, Spec
from vltune.settings.match import MatchSettings
from vltune.settings.method import MethodSettings
from vltune.settings.task import TaskSettings


@dataclass(frozen=True)
class RunConfig:
    """Each part holds what was chosen and, where that says nothing of a setting that is younger than others, the value
    that every run had before.  What only others refer to, such as `rates`, is no part.

    plain: the configuration as a record holds it and a run's identity is made of it: what was chosen, in its order."""

    mode: Literal["train", "pretrain", "eval", "cost"]
    seed: int
    weights: str | None
    results_dir: Path
    force: bool
    busy: Literal["wait", "leave"]
    sweep: str | None
    from_: Path | None
    backbone: BackboneSettings
    task: TaskSettings
    dataset: DatasetSettings
    method: MethodSettings
    match: MatchSettings | None
    engine: Settings
    logger: Spec
    plain: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> RunConfig:
        """Of a configuration whose values are checked."""
        groups = ("backbone", "task", "dataset", "method")
        return cls(
            **{name: plain[name] for name in ("mode", "seed", "weights", "force", "busy", "sweep", "logger")},
            results_dir=Path(plain["results_dir"]),
            from_=None if plain["from"] is None else Path(plain["from"]),
            **{group: before(group) | plain[group] for group in groups},
            match=plain.get("match"),
            engine=Settings.of(plain["engine"]),
            plain=plain,
        )

    def changed(self, **groups: Any) -> RunConfig:
        """With other groups in the place of its own."""
        return RunConfig.of(self.plain | groups)


@cache
def before(group: str) -> dict[str, Any]:
    """The settings of a group that are younger than others, at the values that every run had until then."""
    return {name: mark.value for name, kind in declared(GROUPS[group]).items() for mark in marks(kind, Before)}
