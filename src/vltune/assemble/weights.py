"""Which files of weights and words a run reads, and what is loaded from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vltune.assemble.backbones import advice
from vltune.assemble.checkpoint import CHECKPOINT
from vltune.assemble.data import tokenizer, tokenizer_choices, tokenizer_files
from vltune.errors import UserError

if TYPE_CHECKING:
    from vltune.backbones.backbone import Backbone
    from vltune.records.record import Record
    from vltune.settings.backbone import BackboneSettings
    from vltune.settings.task import TaskSettings
    from vltune.tasks.task import Task


def weight_files(weights: str | None, backbone: BackboneSettings) -> dict[str, Path]:
    """The files of pretrained weights that the configuration names: of the whole `backbone`, or of single towers."""
    from vltune.weights.finding import find as find_file

    towers = backbone.get("tower_weights") or {}
    if not isinstance(towers, dict) or not towers.keys() <= {"image", "text"}:
        fix = "must be {image: FILE, text: FILE}, or one of them, or null"
        raise UserError(f"backbone.tower_weights={towers}: {fix}")
    if weights is not None and any(name is not None for name in towers.values()):
        raise UserError(f"weights={weights}: would replace backbone.tower_weights; give weights=null with them")
    named = {f"backbone.tower_weights.{part}": (part, name, None) for part, name in towers.items()}
    named["weights"] = ("backbone", weights, backbone.get("weights_from"))
    return {
        part: find_file(name, source, setting) for setting, (part, name, source) in named.items() if name is not None
    }


def fingerprints(weights: str | None, backbone: BackboneSettings, data: str) -> dict:
    """Of what files hold, as a run's identity has it; weights are empty where they are random.  data: the data's own."""
    return {
        "weights": fingerprints_of(weight_files(weights, backbone)),
        "tokenizer": of_tokenizer(backbone),
        "data": data,
    }


def check_same_weights(record: Record, file: Path, config: dict) -> None:
    """UserError where the weights of a configuration are not those that a record, in `file`, was made with."""
    now = fingerprints_of(weight_files(config["weights"], config["backbone"]))
    if now != (record.get("fingerprints") or {}).get("weights"):
        raise UserError(
            f"{file}: was made with other weights than {config['weights']} now holds: give its own, --weights"
        )


def of_tokenizer(backbone: BackboneSettings) -> dict[str, str]:
    """Of its files, and what else decides the ids that it gives."""
    return fingerprints_of(tokenizer_files(backbone)) | tokenizer_choices(backbone)


def fingerprints_of(files: dict[str, Path]) -> dict[str, str]:
    """UserError where one is missing."""
    from vltune.weights.finding import fingerprint

    if missing := [f"{path} ({part})" for part, path in files.items() if not path.is_file()]:
        raise UserError(f"{', '.join(missing)}: no such file")
    return {part: fingerprint(path) for part, path in files.items()}


def load(weights: str | None, backbone: BackboneSettings, task: TaskSettings, built: Backbone, head: Task) -> None:
    """The weights that a configuration names, into the modules that were built of it."""
    from vltune.weights.architecture import check_activation
    from vltune.weights.backbones import load_backbone
    from vltune.weights.heads import start_from_matching
    from vltune.weights.keys import MisfitError
    from vltune.weights.towers import load_tower

    if not (files := weight_files(weights, backbone)):
        return
    words = tokenizer(backbone)
    cls_id = words.cls_id
    for part in ("text", "image"):
        if part in files:
            tower = getattr(built, part)
            if hasattr(tower, "activation"):
                check_activation(files[part], tower.activation, setting_of_tower(backbone, part))
            load_tower(tower, files[part], part)
    if "backbone" in files:
        check_told(files["backbone"], backbone)
        if "models" in backbone:
            check_end(files["backbone"], built, words.sep_id)
        try:
            load_backbone(built, files["backbone"], cls_id, f"backbone={backbone['name']}")
        except MisfitError as error:
            raise UserError(f"{error}; {advice(files['backbone'], backbone, task)}") from None
        if task.get("start") == "matching":
            start_from_matching(head, files["backbone"])
    else:
        built.start_class_token(cls_id)


def check_told(file: Path, backbone: BackboneSettings) -> None:
    """UserError where a whole backbone's weights come with another configuration than the one that they are read for."""
    from vltune.weights.architecture import check_activation, check_heads, check_pixels
    from vltune.weights.finding import PIPELINE
    from vltune.weights.pipelines import check_pipeline

    if "models" in backbone:
        check_activation(file, backbone["activation"], "backbone.activation")
        chosen = f"backbone.model={backbone['model']}"
        check_heads(file, backbone["models"][backbone["model"]], chosen)
        if backbone["model"] != CHECKPOINT:  # else they are the file's own, or what was typed
            check_pixels(file, backbone["transform"], chosen)
    if "pipelines" in backbone and file.name == PIPELINE:
        check_pipeline(file, backbone["pipelines"][backbone["model"]], backbone["model"])


def setting_of_tower(backbone: BackboneSettings, part: str) -> str:
    """As it is typed, that chooses the activation of one of a backbone's towers."""
    chosen = backbone[f"{part}_tower"]
    added = "" if "activation" in backbone[f"{part}_towers"][chosen] else "+"
    return f"{added}backbone.{part}_towers.{chosen}.activation"


def check_end(file: Path, built: Backbone, end: int) -> None:
    """UserError where texts end with another token than the text tower looks for."""
    if built.text.end_of_text != end:
        raise UserError(
            f"{file}: ends a text with token {built.text.end_of_text}, and backbone.tokenizer with {end}: they have other "
            "vocabularies; give a CLIP of OpenAI's vocabulary"
        )
