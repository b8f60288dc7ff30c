"""`vltune generate`: what a run's tuned model paints of one's own prompts."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from vltune.assemble.data import tokenizer
from vltune.assemble.model import build_pretrained
from vltune.assemble.weights import check_same_weights
from vltune.errors import UserError
from vltune.runs.progress import Progress
from vltune.runs.signals import Interrupted, StopRequest
from vltune.sharing.adapter import check_parts, check_tuned, record_of

if TYPE_CHECKING:
    from vltune.model import Model
    from vltune.records.record import Record

AT_A_TIME, LONGEST = 8, 60  # pictures; characters of a prompt in a file's name


def generate(file: Path, prompts: Sequence[str], seeds: Sequence[int], out: Path, weights: str | None = None) -> Path:
    """Writes `out/RUN/PROMPT-seedN.png` of each prompt and seed, and a sheet of all; what is there already is not painted
    again.  Returns the folder."""
    from vltune.evaluators.painted import SHEET, fingerprint
    from vltune.judges.wanted import SUBJECT, Wanted
    from vltune.pictures import as_bytes, is_of, read_pictures, sheet, write_picture

    record = record_of(file)
    model = tuned_model(record, file, weights)
    task, whose, folder = model.task, fingerprint(model), out / record["id"]
    for prompt in prompts:
        if task.token not in prompt.split():
            print(f"{prompt}: has no {task.token}, the word for the subject: it is not asked for", file=sys.stderr)
        if task.is_cut(prompt):
            told = f"is longer than the {task.tokenizer.max_length} tokens that are read of a text: its end is left out"
            print(f"{prompt}: {told}", file=sys.stderr)
    wanted = [Wanted(0, SUBJECT, prompt, seed) for prompt in prompts for seed in seeds]
    files = {each: folder / f"{slug(each.prompt)}-seed{each.seed}.png" for each in wanted}
    of = {each: f"{whose} {task.sampler_steps} {task.guidance} {each.prompt}" for each in wanted}
    missing = [each for each in wanted if not is_of(files[each], of[each])]
    with (
        StopRequest() as stop,
        closing(Progress(record["id"], len(missing), unit="picture")) as progress,
        model.settled(),
    ):
        for start in range(0, len(missing), AT_A_TIME):
            some = missing[start : start + AT_A_TIME]
            for each, picture in zip(some, as_bytes(task.paint(model.backbone, some)), strict=True):
                write_picture(files[each], picture, of[each])
            progress.step(len(some))
            try:
                stop.check()
            except Interrupted as stopped:
                stopped.outcome = "what is painted stays; the same command paints the rest"
                raise
    rows = {prompt: [*read_pictures([files[each] for each in wanted if each.prompt == prompt])] for prompt in prompts}
    sheet(folder / SHEET, rows)
    return folder


def tuned_model(record: Record, file: Path, weights: str | None) -> Model:
    """UserError where a record is of no task that paints, or was made with other weights."""
    import torch

    from vltune.engine import artifacts

    check_tuned(record, file)
    check_parts(record, file, "task")
    config = record["config"] | ({} if weights is None else {"weights": weights})
    task = config["task"]
    if "guidance" not in task:
        raise UserError(f"{file}: is of task={task['name']}, which paints nothing; give a record of task=subject")
    check_parts(record, file)
    backbone = config["backbone"]
    check_same_weights(record, file, config)
    facts = {"tokenizer": tokenizer(backbone), "noun": "", "prompts": []}  # a prompt says itself what it shows
    torch.manual_seed(record["identity"]["seed"])  # what starts at random where there are no weights
    model = build_pretrained(config["weights"], backbone, task, config["method"], facts)
    artifacts.read_tuned(file.with_suffix(".safetensors"), model)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def slug(prompt: str) -> str:
    """A name for a file; of a long prompt its start, so that a hash tells it from others."""
    from hashlib import sha256

    short = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
    exact = short == prompt.replace(" ", "-") and "-" not in prompt and len(short) <= LONGEST
    return short if exact else f"{short[:LONGEST]}-{sha256(prompt.encode()).hexdigest()[:6]}"
