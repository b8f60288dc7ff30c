"""Folders that other programs load."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.engine.artifacts import write_tensors
from vltune.errors import UserError
from vltune.sharing import adapter, diffusers, peft_types
from vltune.sharing.card import card
from vltune.sharing.layout import CLASS_TOKEN, TOKEN_TYPES, counterpart, outputs
from vltune.weights.finding import EXTRA

if TYPE_CHECKING:
    from torch import Tensor

    from vltune.records.record import Record

APPLY = """token = safetensors.torch.load_file("vltune_extra.safetensors")["class_token"]
text = next(part for name, part in model.named_modules() if name.endswith("embeddings.text_embeddings"))
text.register_forward_hook(lambda *call: torch.cat([token.expand(len(call[2]), -1, -1), call[2][:, 1:]], 1))"""


def export_peft(source: Path, out: Path) -> None:
    """Writes a run's LoRA, DoRA or (IA)3 as a folder that `peft.PeftModel.from_pretrained` loads on a model of
    transformers', with what else was trained; what PEFT has no place for lies beside it."""
    record, state = adapter.tuned(source)
    there = counterpart(record, source)
    if "modality_type_vocab_size" in there.settings and TOKEN_TYPES not in state:
        raise UserError(
            f"{source}: the weights beneath have token types for one image, and a PEFT folder that holds the head alone "
            "none for a second; --format merged or vltune holds them"
        )
    config, tensors = peft_types.exported(record, state, source)
    check_base(record, source)
    settings = {"num_labels": outputs(state), "max_image_length": -1, **there.settings, "ignore_mismatched_sizes": True}
    given = ", ".join(["BASE", *(f"{name}={value}" for name, value in settings.items())])
    load = f"""import peft, safetensors.torch, torch, transformers

# BASE: the weights below
base = transformers.{there.name}.from_pretrained({given}){same_positions(record)}
model = peft.PeftModel.from_pretrained(base, FOLDER).eval()"""
    token = state[CLASS_TOKEN] if CLASS_TOKEN in state else token_beneath(record, state, source)
    with writing(out) as folder:
        write_json(folder / peft_types.CONFIG, config)
        write_tensors(folder / peft_types.TENSORS, tensors, {"format": "pt"})
        finish(folder, record, token, (f"An adapter of PEFT's for transformers' {there.name}", load, "peft"))


def same_positions(record: Record) -> str:
    """A line that refuses a base with positions of another resolution, which the run's were interpolated from."""
    if (side := record["config"]["backbone"].get("image_size")) is None:
        return ""
    told = f"the run had positions of {side} pixels, which --format merged holds"
    return f'\nassert base.config.image_size == {side}, "{told}"'


def export_merged(source: Path, out: Path) -> None:
    """Writes a run's model, its method folded into the weights, as a folder of transformers'."""
    from vltune.sharing.merged import merged

    record, state = adapter.tuned(source)
    kind = counterpart(record, source).name
    config, tensors, token = merged(record, state, source)
    load = f"""import safetensors.torch, torch, transformers

model = transformers.{kind}.from_pretrained(FOLDER).eval()"""
    with writing(out) as folder:
        write_json(folder / "config.json", config)
        write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
        finish(folder, record, token, (f"A whole {kind} of transformers'", load, "transformers"))


def token_beneath(record: Record, state: Mapping[str, Tensor], source: Path) -> Tensor | None:
    """The class token of a run that did not train it, where its pretrained weights hold one that transformers would not
    use.  UserError where these are not here to be asked."""
    from vltune.sharing.merged import own_token, rebuilt

    if record["config"].get("weights") is None:
        return None
    return own_token(rebuilt(record, state, source), record)


def check_base(record: Record, source: object) -> None:
    """UserError where the weights beneath started at random, so that nobody has them."""
    config = record["config"]
    towers = config["backbone"].get("tower_weights") or {}
    if "weights" in config and config["weights"] is None and not any(towers.values()):
        raise UserError(
            f"{source}: weights=null: what lies beneath started at random, and an adapter alone does not hold it; "
            "--format vltune takes any"
        )


def finish(folder: Path, record: Record, token: Tensor | None, told: tuple[str, str, str]) -> None:
    """Writes the card, and what a library has no place for, into a folder.  told: `card`'s."""
    apply = ""
    if token is not None:
        write_tensors(folder / EXTRA, {"class_token": token}, {"format": "pt"})
        apply = APPLY
    (folder / "README.md").write_text(card(record, *told, apply), encoding="utf-8")


def export_vltune(source: Path, out: Path) -> Path:
    """Writes a run of any method as one file in a folder, which `mode=eval` reads; returns the file."""
    record, state = adapter.tuned(source)
    file = f"{record['id']}.safetensors"
    with writing(out) as folder:
        adapter.write(record, state, folder / file)
        load = f"python run.py mode=eval from={file}"
        text = card(record, "What a run of vltune tuned, in one file", load)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return out / file


def export_diffusers(source: Path, out: Path) -> None:
    """Writes a run's LoRA as a folder that a `StableDiffusionPipeline` loads."""
    record, state = adapter.tuned(source)
    tensors, header = diffusers.exported(record, state, source)
    check_base(record, source)
    load = """import diffusers

# BASE: the weights below
pipeline = diffusers.StableDiffusionPipeline.from_pretrained(BASE)
pipeline.load_lora_weights(FOLDER)"""
    with writing(out) as folder:
        write_tensors(folder / diffusers.TENSORS, tensors, header)
        finish(folder, record, None, ("A LoRA for diffusers' StableDiffusionPipeline", load, "diffusers"))


FORMATS: dict[str, Any] = {
    "vltune": export_vltune,
    "peft": export_peft,
    "merged": export_merged,
    "diffusers": export_diffusers,
}


@contextmanager
def writing(out: Path) -> Iterator[Path]:
    """A folder that takes the name `out` at the end, whole, or leaves nothing.  UserError where there is something."""
    if out.absolute() == Path.cwd():
        raise UserError(f"{out}: is the folder that you are in, and a new one would take its place; name a new folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; name a new folder")
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); name another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
