"""Pictures of fixed prompts and seeds: painted, kept beside the record, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vltune.errors import BadExampleError
from vltune.evaluators.evaluator import Evaluator
from vltune.images import UnreadableImageError
from vltune.judges.judge import Judge
from vltune.judges.judging import BASE, REAL, Judged, rows_of
from vltune.judges.wanted import CLASS, Wanted
from vltune.model import Model
from vltune.pictures import as_bytes, is_of, read_pictures, sheet, write_picture
from vltune.runs.progress import Progress
from vltune.tasks.subject import Subject

SHEET = "sheet.png"


class Painted(Evaluator):
    """What the tuned model paints of the task's prompts and seeds, judged beside the subject's own pictures: those of the
    split.  A picture that is there from before the run was stopped is not painted again.

    In the folder beside the record: the pictures, `base/`, what the untuned model paints of the class, `real/`, the
    subject's own, and a sheet of all."""

    whole_splits = True

    def check(self) -> None:
        """Every judge that is named can be opened."""
        if self.session.fabric.is_global_zero:
            self.session.model.task.judges_here()

    def predict(self, split: str, dataset: Dataset) -> list[dict]:
        session, folder = self.session, self.beside(split)
        task, first = session.model.task, session.fabric.is_global_zero
        judges = task.judges_here() if first else {}  # before anything is painted: one may not be where it should
        wanted = task.shows(dataset.pictures())
        if first:
            compare_with(folder, task, dataset)
        session.fabric.barrier()
        if task.shown == "painted":
            self.paint(split, folder, wanted)
        elif first:
            real = read_pictures(real_files(folder))
            for each in wanted:
                write_picture(folder / each.name, real[each.id % len(real)])
        session.fabric.barrier()
        if not first:
            return []
        write_sheet(folder, task, wanted)
        return judge(folder, task, wanted, {name: each.to(session.fabric.device) for name, each in judges.items()})

    def paint(self, split: str, folder: Path, wanted: Sequence[Wanted]) -> None:
        """This process's share of those that are not there."""
        session = self.session
        fabric, model, size = session.fabric, session.model, session.data.eval_batch_size
        whose, share = fingerprint(model), wanted[fabric.global_rank :: fabric.world_size]
        own = [each for each in share if not is_of(folder / each.name, whose)]
        model.eval()
        progress = Progress(self.label(split), len(own), unit="picture", show=fabric.is_global_zero)
        rounds = range(0, -(-len(wanted) // fabric.world_size), size)  # as many in every process
        with closing(progress), model.settled():
            for start in rounds:
                if some := own[start : start + size]:
                    with fabric.autocast():
                        pictures = as_bytes(model.task.paint(model.backbone, some))
                    for each, picture in zip(some, pictures, strict=True):
                        write_picture(folder / each.name, picture, whose)
                    progress.step(len(some))
                session.stop.check(fabric)


def compare_with(folder: Path, task: Subject, dataset: Dataset) -> None:
    """Puts down what pictures are compared with."""
    for number in range(dataset.pictures()):
        try:
            real = dataset.transform.read(dataset.content(number))
        except UnreadableImageError as error:
            which = f"{dataset.data_dir}: picture {number} of the subject"
            raise BadExampleError(
                f"{which}: {error}; repair it: what is painted is compared with all of them"
            ) from None
        write_picture(folder / REAL / f"{number:04}.png", real)
    for each, picture in task.base.items():
        write_picture(folder / BASE / each, picture)


def fingerprint(model: Model) -> str:
    """Of all that was tuned."""
    sha = sha256()
    for name, tensor in sorted(model.tuned_state().items()):
        sha.update(name.encode())
        sha.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def real_files(folder: Path) -> list[Path]:
    return sorted((folder / REAL).glob("*.png"))


def judge(folder: Path, task: Subject, wanted: Sequence[Wanted], judges: dict[str, Judge]) -> list[dict]:
    """What the judges that are here say of the pictures in a folder, as prediction rows."""
    base = [each for each in wanted if each.about == CLASS and (folder / BASE / each.name).is_file()]
    before = read_pictures([folder / BASE / each.name for each in base])
    judged = Judged(
        wanted,
        read_pictures([folder / each.name for each in wanted]),
        [task.without_token(each) for each in wanted],
        {each.id: picture for each, picture in zip(base, before, strict=True)},
        read_pictures(real_files(folder)),
        among=task.shown == "real",
    )
    rows = rows_of(judged, task.kinds, judges)
    return [row | {key: f"{folder.name}/{row[key]}" for key in ("picture", "beside") if row[key]} for row in rows]


def write_sheet(folder: Path, task: Subject, wanted: Sequence[Wanted]) -> None:
    """Under the subject's own pictures a row for each prompt: with the token, and then without."""
    of_prompt: dict[int, list[Wanted]] = {}
    for each in wanted:
        of_prompt.setdefault(each.id // len(task.seeds), []).append(each)
    rows: dict[str, list[Tensor]] = {task.noun: list(read_pictures(real_files(folder)))}
    for some in of_prompt.values():
        text = " | ".join(dict.fromkeys(each.prompt for each in some))
        rows.setdefault(text, []).extend(read_pictures([folder / each.name for each in some]))
    sheet(folder.parent / SHEET, rows)
