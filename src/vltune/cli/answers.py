"""Answers to VQA's questions: `vltune submission`, `vltune score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vltune.errors import UserError
from vltune.values import printable

_Record = Annotated[Path, typer.Argument(help="A run's record; its predictions lie beside it.", metavar="RECORD.json")]


def submission(
    record: _Record,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="submission-RECORD.json, in this folder")
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="The official question file: each of its questions must be answered, and no other."),
    ] = None,
    part: Annotated[
        bool, typer.Option("--part", help="Leave out answers to questions that the file lacks (test-dev of test).")
    ] = False,
) -> None:
    """Write a run's answers to VQA's test questions as the official server takes them.

    \b
      vltune submission results/records/vilt/vqa-vqav2/apt-0a1b2c3d-seed0.json \\
        --questions ~/vqa/v2_OpenEnded_mscoco_test2015_questions.json
    """
    from vltune.metrics.vqa import question_id
    from vltune.records.record import check_out
    from vltune.results import submission as submissions

    out = out or Path(f"submission-{record.stem}.json")
    check_out(out, filter(None, (record, questions)))
    answers = submissions.answers(record, "test")
    if questions is None:
        submissions.check_whole(record)
    else:
        wanted = submissions.entries(questions, "questions", question_id, id_of=lambda id: id)
        answers = submissions.complete(answers, wanted, questions, part)
    file = submissions.write(out, answers)
    told = f"all questions of {questions.name}" if questions else "all questions that the run read"
    typer.echo(f"{file}: {len(answers):,} answers, {told}")
    if questions is None:
        typer.echo("--questions v2_OpenEnded_mscoco_test2015_questions.json checks it against the official list")
    typer.echo(f"upload it to {submissions.SERVER}: Test-Dev and Test-Standard both want all 447,793 of test2015")


def score(
    record: _Record,
    annotations: Annotated[Path, typer.Option(help="The official annotation file of the split.")],
    split: Annotated[str, typer.Option(help="val or test: whose predictions.")] = "val",
) -> None:
    """Score a run's answers as VQA's official program does: in all, by type of answer and by type of question.

    \b
      vltune score results/records/vilt/vqa-vqav2/apt-0a1b2c3d-seed0.json \\
        --annotations ~/vqa/v2_mscoco_val2014_annotations.json
    """
    from vltune.metrics.vqa import Annotation, evaluate
    from vltune.results import submission as submissions

    if split not in ("val", "test"):
        raise UserError(f"--split {split}: use val or test")
    answers = submissions.answers(record, split)
    result = evaluate(
        answers,
        submissions.entries(annotations, "annotations", Annotation.of, id_of=lambda annotation: annotation.question_id),
    )
    if result.unknown:
        raise UserError(
            f"{annotations}: lacks {len(result.unknown)} of the {len(answers)} questions of {split} that were answered, "
            f"such as {result.unknown[0]}: give the annotations of that split, or the other --split"
        )
    typer.echo(f"{record.stem}, {split}: {result.scored:,} of {result.annotated:,} annotated questions were answered")
    lines = {"overall": result.overall}
    lines |= {f"answer type: {printable(kind)}": accuracy for kind, accuracy in result.answer_type.items()}
    lines |= {f"question type: {printable(kind)}": accuracy for kind, accuracy in result.question_type.items()}
    width = max(map(len, lines))
    for name, accuracy in lines.items():
        typer.echo(f"{name:{width}} {accuracy:6.2f}")
