"""Of pictures: `vltune classify`, `vltune generate` and `vltune judge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vltune.errors import UserError
from vltune.values import place, printable


def classify(
    files: Annotated[list[Path] | None, typer.Argument(help="Images.", metavar="FILE...")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="An image, or several: --image a.jpg b.jpg.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="A CLIP: a folder, a file or a hub name.", show_default="with --from, the record's"),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help='Their names: "cat,dog".', show_default="with --from, the record's")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="What a name stands in, at {}.", show_default="a photo of a {}.; with --from, the record's"),
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="A record of image classification: as that run tuned it.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="quick_gelu or gelu, of a file that does not tell.", show_default="the file's")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell which of some classes images show: the probability of each, by CLIP as it is or as a run tuned it.

    \b
      vltune classify --weights weights/clip-vit-base-patch16 --image photo.jpg --classes "cat,dog"
      vltune classify --weights weights/ViT-B-16.pt --image *.jpg --classes "red,blue" --template "a {} car."
      vltune classify --from results/records/clip_b16/few_shot_16-dtd/coop-1a2b3c4d-seed0.json --image wall.jpg --json
    """
    images = [*(image or []), *(files or [])]
    names, chosen = of_classes(classes), chosen_weights(weights)
    if not images:
        raise UserError("--image: name an image")
    template = checked_template(template)
    if from_ is None:
        if chosen is None:
            raise UserError("--weights: name a checkpoint of CLIP, or a record with --from")
        if not names:
            raise UserError('--classes: name what the image may show, as in --classes "cat,dog"')
    elif activation is not None:
        raise UserError(f"--activation {activation}: the record says that; leave it out")
    from vltune.experiment.classify import of_record, zero_shot

    found = of_record(from_, chosen, names, template) if from_ else zero_shot(chosen, names, template, activation)
    shares = [dict(zip(found.classes, of_image, strict=True)) for of_image in found(images)]
    if as_json:
        rows = [{"image": str(file), "probabilities": of} for file, of in zip(images, shares, strict=True)]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    width = max(len(printable(name)) for name in found.classes)
    for file, of in zip(images, shares, strict=True):
        typer.echo(printable(str(file)))
        for name, share in sorted(of.items(), key=lambda each: -each[1]):
            typer.echo(f"  {printable(name):{width}}  {share:.4f}")


def of_classes(classes: str | None) -> list[str]:
    """UserError where a name is empty or stands twice."""
    if classes is None:
        return []
    names = [name.strip() for name in classes.split(",")]
    if not all(names):
        raise UserError(f"--classes {classes}: holds an empty name; give names with commas between them")
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise UserError(f"--classes {classes}: holds {twice[0]} twice; leave one out")
    return names


def checked_template(template: str | None) -> str | None:
    if template is not None and template.count("{}") != 1:
        raise UserError(f"--template {template}: must hold {{}} once, where the name goes, as in a photo of a {{}}.")
    return template


def chosen_weights(weights: str | None) -> str | None:
    from vltune.weights.finding import PACKAGE

    return weights if weights is None or weights.startswith(PACKAGE) else place("--weights", weights)


def generate(
    record: Annotated[
        Path, typer.Argument(help="The record of a run of task=subject, or a file that `export` made of it.")
    ],
    prompt: Annotated[list[str], typer.Option(help="What to paint, with the run's token in it; may be given again.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.", show_default="outputs/pictures")] = Path(
        "outputs/pictures"
    ),
    seeds: Annotated[str, typer.Option(help="Of the noise, one picture each.")] = "0,1,2,3",
    weights: Annotated[str | None, typer.Option(help="The pretrained model.", show_default="the record's")] = None,
) -> None:
    """Paint one's own prompts by the model that a run tuned: a picture for each seed, and a sheet of all.

    A picture that is there already is not painted again.

    \b
      vltune generate results/records/sd_mini/subject-.../lora-1a2b3c4d-seed0.json --prompt "a z square at the top left"
    """
    from vltune.experiment.generate import generate as paint

    given = [text.strip() for text in prompt]
    if "" in given:
        raise UserError("--prompt is empty; say what to paint")
    folder = paint(record, given, of_seeds(seeds), out, chosen_weights(weights))
    typer.echo(f"{folder}/")


def of_seeds(seeds: str) -> list[int]:
    """UserError where one is no whole number from 0 on, or stands twice."""
    texts = [text.strip() for text in seeds.split(",")]
    if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts) or len({*texts}) < len(texts):
        raise UserError(f"--seeds {seeds}: give different whole numbers with commas between them, as in 0,1,2,3")
    return [int(text) for text in texts]


def judge(
    record: Annotated[
        Path, typer.Argument(help="The record of a run of task=subject, its pictures in the folder beside it.")
    ],
    folder: Annotated[
        list[str] | None,
        typer.Option(help="Of a judge, NAME=DIR: --folder dino=weights/dino-vits16; may be given again."),
    ] = None,
) -> None:
    """Judge the pictures that a run painted, where a judge was not there: its figures go into the record.

    \b
      vltune judge results/records/sd15/subject-.../lora-1a2b3c4d-seed0.json --folder dino=weights/dino-vits16
    """
    given = dict(of_folder(each) for each in folder or ())
    from vltune.experiment.judge import judge as judged
    from vltune.experiment.outcome import missing_scores, scores

    found = judged(record, given)
    typer.echo(f"{scores(found)}{missing_scores(found, record)}")


def of_folder(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise UserError(f"--folder {text}: give a judge and its folder, as in dino=weights/dino-vits16")
    return name, place("--folder", folder)
