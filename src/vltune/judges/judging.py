"""What judges say of pictures, as prediction rows: one for each picture and measure.

A judge that is not here leaves its rows without a score, to be filled in later (`vltune judge`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vltune.judges.judge import Judge, alike, together
from vltune.judges.wanted import CLASS, SUBJECT, Wanted
from vltune.metrics.metric import Prediction

AT_A_TIME = 32  # pictures
BASE, REAL = "base", "real"  # folders of what pictures are compared with


@dataclass
class Judged:
    """What there is to judge.  Pictures are (N, 3, H, W) uint8.

    wanted: of each of `pictures` what it is of.  prompts: of each its prompt without the token, by the word for the class
    alone.  base: by id, what the untuned model painted of the class.  real: the subject's own pictures.  among: whether
    `pictures` are these same ones, none of which is compared with itself."""

    wanted: Sequence[Wanted]
    pictures: Tensor
    prompts: Sequence[str]
    base: Mapping[int, Tensor]
    real: Tensor
    among: bool = False


def rows_of(judged: Judged, kinds: Mapping[str, type[Judge]], judges: Mapping[str, Judge]) -> list[Prediction]:
    """kinds: of all that are asked; judges: those of them that are here."""
    rows = []
    if not judged.wanted:  # of a split that is not there
        return rows
    for number, (name, kind) in enumerate(kinds.items()):
        asked = measures(kind, judged, first=number == 0)
        seen = of_these(judged, {about for _, about in asked})
        found = scores(seen, judges[name], {measure for measure, _ in asked}) if name in judges else {}
        for measure, about in asked:
            of = found.get(measure)
            for place, each in enumerate(seen.wanted):
                if each.about == about:
                    rows.append(row(each, beside(judged, each), measure, None if of is None else of[place]))
    return rows


def measures(kind: type[Judge], judged: Judged, first: bool) -> list[tuple[str, str]]:
    """What a judge measures, and about what: of the subject's own pictures how alike they are, of others how well they show
    their prompts too, and by the first judge what has become of the class."""
    found = [(kind.pictures, SUBJECT), *([(kind.texts, SUBJECT)] if kind.texts and not judged.among else [])]
    return found + ([("drift", CLASS), ("prior", CLASS), ("diversity", SUBJECT)] if first and judged.base else [])


def of_these(judged: Judged, about: Collection[str]) -> Judged:
    """The pictures about these alone."""
    places = [place for place, each in enumerate(judged.wanted) if each.about in about]
    wanted, prompts = ([of[place] for place in places] for of in (judged.wanted, judged.prompts))
    return replace(judged, wanted=wanted, pictures=judged.pictures[places], prompts=prompts)


def row(wanted: Wanted, beside: str, measure: str, score: float | None) -> Prediction:
    return {
        "id": wanted.id,
        "prediction": wanted.prompt,
        "score": score,
        "measure": measure,
        "about": wanted.about,
        "seed": wanted.seed,
        "picture": wanted.name,
        "beside": beside,
    }


def beside(judged: Judged, wanted: Wanted) -> str:
    """What a person looks at beside a picture: what the untuned model painted of the same, or the subject itself."""
    if wanted.about == CLASS:
        return f"{BASE}/{wanted.name}"
    return f"{REAL}/{wanted.id % len(judged.real):04}.png"


@torch.no_grad()
def scores(judged: Judged, judge: Judge, asked: Collection[str]) -> dict[str, list[float | None]]:
    """By measure that is asked for, of each of the pictures; None where it has none."""
    seen, shown = looked_at(judged, judge, reads=judge.texts in asked)
    fidelity = near(judged, judge, seen)
    found = {
        judge.pictures: lambda: fidelity,
        "prior": lambda: fidelity,
        "drift": lambda: moved(judged, judge, seen),
        "diversity": lambda: spread(judged, seen),
        judge.texts: lambda: shown,
    }
    return {measure: [None if each is None else float(each) for each in found[measure]()] for measure in asked}


def near(judged: Judged, judge: Judge, seen: Tensor) -> list[Tensor | None]:
    """How alike the subject's own pictures they are; one of these, how alike the others."""
    fidelity = alike(seen, embedded(judge, judged.real))
    if not judged.among:
        return [*fidelity.mean(1)]
    others = ~torch.eye(len(fidelity), dtype=torch.bool, device=fidelity.device)
    return [of[mask].mean() if mask.any() else None for of, mask in zip(fidelity, others, strict=True)]


def looked_at(judged: Judged, judge: Judge, reads: bool) -> tuple[Tensor, list[Tensor]]:
    """What they hold, and where it reads how well they show their prompts.  Both of a part before the next: a judge
    remembers the part that it saw last."""
    seen, shown = [], []
    for part, prompts in zip(judged.pictures.split(AT_A_TIME), split(judged.prompts), strict=True):
        seen.append(judge.embed(part))
        shown += judge.agreement(part, prompts) if reads else []
    return torch.cat(seen), shown


def embedded(judge: Judge, pictures: Tensor) -> Tensor:
    return torch.cat([judge.embed(part) for part in pictures.split(AT_A_TIME)])


def split(prompts: Sequence[str]) -> list[Sequence[str]]:
    return [prompts[start : start + AT_A_TIME] for start in range(0, len(prompts), AT_A_TIME)]


def moved(judged: Judged, judge: Judge, seen: Tensor) -> list[Tensor | None]:
    """How far the class has: (1 - cosine) / 2 of what the tuned and the untuned model paint of the same noise, 0 to 1."""
    places = [place for place, each in enumerate(judged.wanted) if each.about == CLASS and each.id in judged.base]
    found: list[Tensor | None] = [None] * len(judged.wanted)
    if places:
        before = embedded(judge, torch.stack([judged.base[judged.wanted[place].id] for place in places]))
        for place, cosine in zip(places, together(seen[places], before), strict=True):
            found[place] = (1 - cosine) / 2
    return found


def spread(judged: Judged, seen: Tensor) -> list[Tensor | None]:
    """How different pictures of a prompt are: of each, the mean of 1 - cosine to the others; None where there are none."""
    found: list[Tensor | None] = []
    for place, each in enumerate(judged.wanted):
        others = [
            at
            for at, other in enumerate(judged.wanted)
            if at != place and (other.about, other.prompt) == (each.about, each.prompt)
        ]
        one = seen[place : place + 1].expand(len(others), -1, -1)
        found.append((1 - together(one, seen[others])).mean() if others else None)
    return found
