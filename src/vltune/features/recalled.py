"""What the untuned backbone paints, kept on disk for every method, seed and run: pictures of the class to train on, and
those that a tuned model's are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from vltune.backbones.backbone import Backbone
from vltune.data.subjects.class_pictures import class_pictures
from vltune.engine.session import Session
from vltune.features.cache import digest
from vltune.judges.wanted import CLASS, Wanted
from vltune.runs.progress import Progress
from vltune.tasks.subject import Subject

FOLDER = "painted"


@torch.no_grad()
def recall(session: Session, trains: bool = True) -> None:
    """Gives the task what the backbone painted before it was tuned; paints what is not there.  Call it before anything is
    trained or read.

    trains: whether the task is to be trained; where it is judged alone, no pictures to train on are painted.
    Of processes that start together one paints and the others wait.  Raises Interrupted where the session is asked to stop,
    after which finished pictures stay."""
    task = session.model.task
    trained_on = task.of_class() if trains else []
    compared = [each for each in task.wanted() if each.about == CLASS] if task.shown == "painted" else []
    wanted = {name(task, each): each for each in [*trained_on, *compared]}
    if not wanted:
        return
    pictures = dict(zip(wanted, painted(session, wanted), strict=True))
    if trained_on:
        own = torch.stack([pictures[name(task, each)] for each in trained_on])
        with session.fabric.autocast():
            task.remember(session.model.backbone, own / 127.5 - 1)
    task.base = {each.name: pictures[name(task, each)] for each in compared}


def name(task: Subject, wanted: Wanted) -> str:
    """Of a picture: what decides it beside the backbone and the sampler."""
    ids = task.ids([wanted.prompt]).numpy()
    return f"{sha256(ids.tobytes()).hexdigest()[:16]}-{wanted.seed}"


def probe(backbone: Backbone, task: Subject) -> str:
    """What the backbone paints in two steps: settings decide it that leave the weights as they are."""
    empty = task.text_state(backbone, "")
    painted = backbone.paint(empty, empty, backbone.noise([0]), 2, task.guidance)
    return sha256(painted.float().cpu().numpy().tobytes()).hexdigest()


def painted(session: Session, wanted: dict[str, Wanted]) -> Tensor:
    """(N, 3, H, W) uint8, by the backbone alone."""
    fabric, model, task = session.fabric, session.model, session.model.task
    training, root = model.training, Path(session.settings.features_dir) / FOLDER
    progress = Progress(f"{session.label}, before tuning", len(wanted), unit="picture", show=fabric.is_global_zero)

    def paint(some: Sequence[Wanted]) -> Tensor:
        with fabric.autocast():
            return task.paint(model.backbone, some)

    def step(there: int) -> None:
        progress.step(max(0, there - progress.done))
        session.stop.check()

    with closing(progress), model.tuning.off(), task.settled():
        about = {
            "backbone": digest([model.backbone], precision := fabric.strategy.precision.precision),
            "precision": precision,
            "sampler": [task.sampler_steps, task.guidance],
        }
        model.eval()
        try:
            fabric.strategy.precision.convert_module(model.backbone).to(fabric.device)
            with fabric.autocast():
                about["probe"] = probe(model.backbone, task)
            return class_pictures(root, about, wanted, paint, session.data.eval_batch_size, step)
        finally:
            model.train(training)
