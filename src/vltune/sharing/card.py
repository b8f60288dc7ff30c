"""A model card, README.md with the Hub's YAML head, from a run's record: only what the record says."""

from __future__ import annotations

import json

from vltune import __version__
from vltune.records.record import Record

APPLY = """The class token is not in it, which transformers has no place for: until these three lines are run, its outputs
are not those of the scores below."""


def card(record: Record, form: str, load: str, library: str | None = None, apply: str = "") -> str:
    """form: what is shared, in words.  load: how it is loaded: by a command, or by code where a library of the Hub's names
    does it.  apply: code of what else has to be done to use it, which the first line then says."""
    identity, cost, made = record["identity"], record["cost"], record["provenance"]
    prints, method = record.get("fingerprints") or {}, record["config"]["method"]
    settings = {key: value for key, value in method.items() if key not in ("_target_", "rates", "colour", "order")}
    scores = [
        f"| {split} | {name} | {value:.2f} |"
        for split, figures in record["metrics"].items()
        for name, value in (figures or {}).items()
    ]
    images = record["config"].get("backbone", {}).get("transform")
    trial = record["config"].get("engine", {}).get("eval_examples")
    size = "—" if cost["additional_macs"] is None else f"{cost['additional_macs']:,}"
    head = {
        "tags": ["vltune", identity["backbone"], identity["method"], identity["task"]],
        **({"library_name": library} if library else {}),
    }
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in head.items()),
        "---",
        *([APPLY, "", "```python", apply, "```", ""] if apply else []),
        f"# {identity['method']} on {identity['backbone']}, {identity['task']} ({identity['dataset']})",
        "",
        f"{form}, made by vltune {__version__} from the run `{record['id']}`.",
        "",
        *(f"```{'python' if library else 'sh'}", load, "```", ""),
        "| split | metric | score |",
        "|---|---|---:|",
        *scores,
        "",
        f"One run, seed {identity['seed']}: these scores have no spread.",
        *([f"A trial: they are of the first {trial} examples of each split."] if trial else []),
        "",
        "| | |",
        "|---|---|",
        f"| method | `{json.dumps(settings, ensure_ascii=False)}` |",
        f"| parameters of the method | {cost['method_params']:,} |",
        f"| of head, pooler, token types and class token | {cost['task_params']:,} |",
        f"| multiply-accumulates added in inference | {size} |",
        *([f"| images are made ready by | `{json.dumps(images)}` |"] if images else []),
        *(f"| {part} weights, sha256 | `{found}` |" for part, found in (prints.get("weights") or {}).items()),
        f"| data, sha256 | `{prints.get('data')}` |",
        f"| commit | `{made['commit']}`{', with changes' if made['dirty'] else ''} |",
        "",
    ]
    return "\n".join(lines)
