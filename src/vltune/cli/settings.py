"""What a setting is: `vltune explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def explain(
    key: Annotated[str, typer.Argument(help="As in key=value of run.py: engine.lr; a group's name shows all of it.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="As of run.py: which method, backbone and task it is a setting of.")
    ] = None,
    project: Annotated[Path, typer.Option(help="Folder of run.py and conf/.")] = Path(),
) -> None:
    """Print what a setting is, what it takes, its value, and whether it decides which run it is.

    \b
      vltune explain engine.lr
      vltune explain method.rank method=lora
      vltune explain dataset
    """
    from omegaconf import OmegaConf

    from vltune.command_line import check_choices, resolve
    from vltune.explain import explanation
    from vltune.overrides import composed, explained

    typed = overrides or []
    check_choices(project / "conf", typed)
    with explained(project, typed):
        config = composed(project, typed)
    del config["hydra"]
    typer.echo(explanation(key, resolve(OmegaConf.create(config))))
