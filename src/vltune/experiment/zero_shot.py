"""`vltune check --weights`: how often CLIP, as it was pretrained, tells what images show.  A list of classes that is wrong,
or in another order than the labels, gives no more than chance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from vltune.assemble.data import tokenizer
from vltune.assemble.factory import build
from vltune.data import manifest
from vltune.errors import UserError
from vltune.experiment.classify import TASK, UNTUNED, backbone_of, classifier

ROLES = ("test", "val")  # whose splits are looked at: the first of which there are some
WORST = 5  # classes that are told
NEAR = 2  # times chance


@dataclass(frozen=True)
class ClassScore:
    """right: of so many `images`.  taken_for: what the others are most often said to be, `times`."""

    name: str
    right: int
    images: int
    taken_for: str
    times: int


@dataclass(frozen=True)
class ZeroShot:
    """chance and accuracy: in %.  worst: of the classes that are mistaken, those that are most often."""

    splits: list[str]
    images: int
    accuracy: float
    chance: float
    worst: list[ClassScore]

    def __str__(self) -> str:
        of = f"{self.images:,} images of {', '.join(self.splits)}"
        return f"zero-shot accuracy: {self.accuracy:.2f} % of {of}, where chance is {self.chance:.2f} %"

    @property
    def is_near_chance(self) -> bool:
        return self.accuracy < NEAR * self.chance


class ZeroShotCheck:
    """What weights tell of prepared images.

    data: a folder of `vltune prepare`.  weights: a CLIP.  template: the data set's own where it is None.  activation: of
    weights that do not tell it.  UserError where the folder holds no labelled images, or the weights are no CLIP."""

    def __init__(self, data: Path, weights: str, template: str | None = None, activation: str | None = None):
        self.data, self.weights, self.template = data, weights, template
        if not (found := manifest.read(data) or {}).get("classes"):
            raise UserError(f"--weights {weights}: {data} is no folder of labelled images; leave it out")
        ends = {role: [name for name in found["splits"] if name.endswith(f"_{role}")] for role in ROLES}
        self.splits = ends["test"] or ends["val"]
        if not self.splits:
            raise UserError(f"--weights {weights}: {data} has no split {' or '.join(ROLES)}; leave it out")
        self.backbone = backbone_of(weights, activation)

    def __call__(self, images: int, progress: bool = True) -> ZeroShot:
        """images: how many are looked at, at most, of all classes as many as can be."""
        from vltune.data.labelled.reader import LabelledImages

        words, transform = tokenizer(self.backbone), build(self.backbone["transform"], decode="exact")
        own = {} if self.template is None else {"template": "own", "own_template": self.template}
        reader = LabelledImages(self.data, self.splits, words, transform, **own)
        model = classifier(self.weights, self.backbone, TASK, UNTUNED, reader.facts)
        chosen, rows = reader.spread(images), []
        with tqdm(desc="zero-shot", total=len(chosen), unit="image", disable=not progress) as bar:
            for batch, output in model.outputs(reader[number] for number in chosen):
                rows += model.model.task.predictions(output, batch)
                bar.update(len(output))
        if not rows:
            raise UserError(f"{self.data}: none of {len(chosen)} images can be read; run `vltune prepare` again")
        accuracy = 100 * sum(row["score"] for row in rows) / len(rows)
        return ZeroShot(self.splits, len(rows), accuracy, 100 / len(reader.classes), of_classes(rows)[:WORST])


def of_classes(rows: Sequence[dict]) -> list[ClassScore]:
    """Of prediction rows: each class some of which are mistaken, first those with the largest share of them."""
    said = defaultdict(Counter)
    for row in rows:
        said[row["class"]][row["prediction"]] += 1
    found = []
    for name, counts in said.items():
        if wrong := Counter({other: count for other, count in counts.items() if other != name}):
            found.append(ClassScore(name, counts[name], counts.total(), *wrong.most_common(1)[0]))
    return sorted(found, key=lambda each: (each.right / each.images, -each.images))
