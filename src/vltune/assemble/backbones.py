"""Every backbone that a folder of configurations names, and which of them a checkpoint is of."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.assemble.factory import build
from vltune.errors import UserError

if TYPE_CHECKING:
    from vltune.weights.describe import Choice

CONF = Path("conf")  # where the commands of the documentation are typed


def advice(weights: Path, task: str) -> str:
    """What to do about a checkpoint of another backbone."""
    from vltune.weights.describe import fitting, inspect

    suited = [choice for choice in backbones(CONF) if task in choice.tasks]
    if fits := [choice.overrides for choice, matched in fitting(inspect(weights), suited) if not matched.problems]:
        return f"use {' or '.join(fits)} as it stands"
    return f"`vltune weights {weights}` tells what it is"


def backbones(conf: Path) -> list[Choice]:
    """The backbones of a folder of configurations, each as it stands for its tasks and with its other image towers."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from vltune.weights.describe import Choice

    tasks = defaultdict(list)
    for file in sorted(conf.glob("task/*.yaml")):
        task = group(file)
        if "reader" in task:
            tasks[task["token_types"]].append(task["name"])
    choices = []
    for file in sorted(conf.glob("backbone/*.yaml")):
        spec = group(file)
        for token_types, names in sorted(tasks.items()):
            standing = spec.get("image_tower")
            for tower in spec.get("image_towers", [standing]):
                chosen = {"backbone": {**spec, "image_tower": tower}, "task": {"token_types": token_types}}
                try:
                    resolved = OmegaConf.to_container(OmegaConf.create(chosen), resolve=True)["backbone"]
                except OmegaConfBaseException as error:
                    reason = str(error).splitlines()[0]
                    raise UserError(f"{file}: {reason}; it may refer to backbone and task.token_types alone") from None
                other = "" if tower == standing else f" backbone.image_tower={tower}"
                overrides = f"backbone={file.stem}{other}"
                choices.append(Choice(overrides, not other, tuple(names), partial(build, resolved)))
    return choices


def group(file: Path) -> dict:
    """What a configuration file chooses for its group, unresolved."""
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.load(file))
    return content.get(file.parent.name, content)
