"""What the untuned backbone paints, kept on disk for every method, seed and run: pictures of the class to train on, and
those that a tuned model's are compared with."""

from __future__ import annotations

from contextlib import closing
from hashlib import sha256
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from vltune.canonical import text
from vltune.engine.session import Session
from vltune.features.cache import digest
from vltune.pictures import as_bytes, read_pictures, write_picture
from vltune.runs.progress import Progress
from vltune.tasks.subject import CLASS, Wanted

FOLDER = "painted"


@torch.no_grad()
def recall(session: Session) -> None:
    """Gives the task what the backbone painted before it was tuned; paints what is not there.  Call it before anything is
    trained or read.

    Of processes that start together one paints and the others wait.  Raises Interrupted where the session is asked to stop,
    after which finished pictures stay."""
    model, task, fabric = session.model, session.model.task, session.fabric
    wanted = task.of_class() + (
        [each for each in task.wanted() if each.about == CLASS] if task.shown == "painted" else []
    )
    if not wanted:
        return
    with model.tuning.off():
        about = {
            "backbone": digest([model.backbone]),
            "precision": fabric.strategy.precision.precision,
            "sampler": [task.sampler_steps, task.guidance],
        }
    folder = Path(session.settings.features_dir) / FOLDER / sha256(text(about).encode()).hexdigest()[:16]
    files = {each: folder / name(each) for each in wanted}
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    while not lock.is_locked:
        session.stop.check()
        try:
            lock.acquire(timeout=1)
        except Timeout:
            continue
    try:
        paint(session, {each: file for each, file in files.items() if not file.is_file()})
    finally:
        lock.release()
    count = task.class_pictures
    if count:
        pictures = read_pictures([files[each] for each in wanted[:count]])
        task.remember(model.backbone, pictures / 127.5 - 1)
    rest = wanted[count:]
    kept = read_pictures([files[each] for each in rest])
    task.base = {each.name: picture for each, picture in zip(rest, kept, strict=True)}


def name(wanted: Wanted) -> str:
    """Of a picture's file: what decides it beside the folder's fingerprint."""
    return f"{sha256(wanted.prompt.encode()).hexdigest()[:16]}-{wanted.seed}.png"


def paint(session: Session, missing: dict[Wanted, Path]) -> None:
    fabric, model = session.fabric, session.model
    if not missing:
        return
    fabric.strategy.precision.convert_module(model.backbone).to(fabric.device)
    training, size, wanted = model.training, session.data.eval_batch_size, list(missing)
    progress = Progress(f"{session.label}, before tuning", len(wanted), unit="picture", show=fabric.is_global_zero)
    model.eval()
    with closing(progress), model.tuning.off(), model.task.settled():
        for start in range(0, len(wanted), size):
            some = wanted[start : start + size]
            with fabric.autocast():
                pictures = as_bytes(model.task.paint(model.backbone, some))
            for each, picture in zip(some, pictures, strict=True):
                write_picture(missing[each], picture)
            progress.step(len(some))
            session.stop.check()
    model.train(training)
