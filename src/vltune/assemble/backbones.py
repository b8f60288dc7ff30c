"""Every backbone that a folder of configurations names, and which of them a checkpoint is of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.assemble.checkpoint import CHECKPOINT, is_denoiser, is_foreign, of_file, of_folder, stamped, taken
from vltune.assemble.factory import build
from vltune.configuration import find
from vltune.errors import UserError
from vltune.settings.backbone import PICKS

if TYPE_CHECKING:
    from vltune.settings.backbone import BackboneSettings
    from vltune.settings.task import TaskSettings
    from vltune.weights.describe import Choice

CONF = Path("conf")  # where the commands of the documentation are typed


def advice(weights: Path, backbone: BackboneSettings, task: TaskSettings) -> str:
    """What to do about a checkpoint that a backbone does not fit."""
    from vltune.weights.describe import fitting, inspect

    if backbone.get("model", CHECKPOINT) != CHECKPOINT and is_foreign(*stamped(weights)):
        return "backbone.model=checkpoint takes the file's own sizes"
    named = {file.stem for file, known in tasks(CONF) if known["_target_"] == task["_target_"]}
    suited = [choice for choice in backbones(CONF, weights) if named & {*choice.tasks}]
    if fits := [
        choice.overrides for choice, matched in fitting(inspect(weights, suited), suited) if not matched.problems
    ]:
        return f"use {' or '.join(fits)} as it stands"
    return f"`vltune weights {weights}` tells what it is"


def backbones(conf: Path, weights: Path | None = None) -> list[Choice]:
    """The backbones of a folder of configurations, each as it stands for its tasks, with its other image towers or models,
    and with the sizes of a checkpoint of CLIP."""
    from vltune.weights.describe import Choice

    known = [task | {"name": file.stem} for file, task in tasks(conf)]
    denoiser = weights if weights is not None and is_denoiser(*stamped(weights)) else None
    clip = weights if not (weights is None or denoiser) and is_foreign(*stamped(weights)) else None
    choices = []
    for file in sorted(conf.glob("backbone/*.yaml")):
        spec = group(file)
        if weights is not None and ("pipelines" in spec) != (denoiser is not None):
            continue
        for token_types, names in offered(spec, known, file).items():
            for chosen, build_it in variants(spec, clip, denoiser):
                resolved = resolve(spec | chosen, token_types, file)
                rank = 2 if CHECKPOINT in chosen.values() else int(bool(chosen))
                settings = [
                    f"backbone.{key}={value}" for key, value in (chosen | of_activation(resolved, clip)).items()
                ]
                overrides = " ".join([f"backbone={file.stem}", *settings])
                towers = "tower_weights" in spec
                choices.append(Choice(overrides, rank, tuple(names), partial(build_it, resolved), towers))
    return choices


def tasks(conf: Path) -> list[tuple[Path, dict]]:
    """The files of tasks that read data, and what each says."""
    return [(file, task) for file in sorted(conf.glob("task/*.yaml")) if "reader" in (task := group(file))]


def variants(
    spec: Mapping[str, Any], clip: Path | None, denoiser: Path | None = None
) -> Iterator[tuple[dict[str, str], Callable]]:
    """Its settings that choose another tower or model, and what builds the backbone of a resolved configuration; the one as
    it stands first.  clip, denoiser: a checkpoint of CLIP or of a text-to-image model, whose sizes are another choice."""
    yield {}, build
    for several, pick in PICKS.items():
        for other in spec.get(several, ()):
            if other != spec[pick]:
                yield {pick: other}, build
    if clip is not None and "models" in spec and has_words(clip, spec["vocabulary_size"]):
        yield {"model": CHECKPOINT}, partial(build_as, clip)
    if denoiser is not None and denoiser.suffix == ".json" and not spec["coordinates"]:
        yield {"model": CHECKPOINT}, partial(build_folder, denoiser)


def has_words(clip: Path, count: int) -> bool:
    """Whether a checkpoint tells its sizes, a vocabulary of so many words among them."""
    try:
        return of_file(*stamped(clip)).sizes["text"]["vocabulary_size"] == count
    except UserError:  # which `vltune weights` says
        return False


def build_as(clip: Path, resolved: dict) -> Any:
    return build(taken(resolved, of_file(*stamped(clip))))


def build_folder(denoiser: Path, resolved: dict) -> Any:
    from vltune.weights.pipelines import settings

    return build(of_folder(resolved, settings(denoiser)))


def of_activation(resolved: Mapping[str, Any], clip: Path | None) -> dict[str, str]:
    """The setting that a checkpoint's activation needs, where that is not the configuration's."""
    from vltune.weights.architecture import activation

    if clip is None or "models" not in resolved:
        return {}
    known, _ = activation(clip)
    return {} if known == resolved["activation"] else {"activation": known or "quick_gelu|gelu"}


def offered(spec: Mapping[str, Any], tasks: list[dict], file: Path) -> dict[int, list[str]]:
    """{token types: tasks that are built with so many} of the tasks that a backbone can do; where there are none, none for
    the first's."""
    found = defaultdict(list)
    for task in tasks:
        resolve(spec, task["token_types"], file)
        if can(spec, task):
            found[task["token_types"]].append(task["name"])
    return dict(sorted(found.items())) or {task["token_types"]: [] for task in tasks[:1]}


def can(spec: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    try:
        find(task["_target_"]).check_backbone(find(spec["_target_"]))
    except UserError:
        return False
    return True


def resolve(spec: Mapping[str, Any], token_types: int, file: Path) -> dict:
    """What a backbone's configuration says for a task.  UserError where it refers to anything else."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    chosen = {"backbone": dict(spec), "task": {"token_types": token_types}}
    try:
        return OmegaConf.to_container(OmegaConf.create(chosen), resolve=True)["backbone"]
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: {reason}; it may refer to backbone and task.token_types alone") from None


def configured(weights: Path) -> dict | None:
    """The configuration of the backbone that comes with the package and with these weights; None where they are others.

    UserError where they come with it and no configurations are here."""
    from vltune.weights.finding import PACKAGE, locate

    files = sorted(CONF.glob("backbone/*.yaml"))
    if not files and weights.is_relative_to(locate(f"{PACKAGE}weights")):
        raise UserError(
            f"{weights}: what it is stands in conf/backbone, which is not here; type this in run.py's folder"
        )
    for file in files:
        spec = group(file)
        named = spec.get("weights") or ""
        if named.startswith(PACKAGE) and locate(named) == weights:
            return resolve(spec, 1, file)
    return None


def group(file: Path) -> dict:
    """What a configuration file chooses for its group, unresolved."""
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.load(file))
    return content.get(file.parent.name, content)
