"""`vltune classify`: which of some words an image shows, by CLIP as it was pretrained or as a run tuned it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltune.assemble.adopt import untold
from vltune.assemble.backbones import configured
from vltune.assemble.checkpoint import CHECKPOINT, of_file, stamped, taken
from vltune.assemble.data import data_folder, open_data, tokenizer
from vltune.assemble.factory import build
from vltune.assemble.model import build_pretrained
from vltune.assemble.weights import check_same_weights, weight_files
from vltune.configuration import find
from vltune.errors import UserError
from vltune.experiment.evaluate import whole
from vltune.experiment.transfer import check_tuned_on, fingerprint_of_data
from vltune.settings.config import RunConfig
from vltune.sharing.adapter import check_parts, check_tuned, record_of

if TYPE_CHECKING:
    from torch import Tensor

    from vltune.batch import Batch
    from vltune.data.transforms import Transform
    from vltune.model import Model

TEMPLATE = "a photo of a {}."
AT_A_TIME = 32  # images
# What a checkpoint of CLIP does not say of the backbone, as in conf/backbone/clip.yaml.
BACKBONE: dict[str, Any] = {
    "name": "clip",
    "_target_": "vltune.backbones.clip.Clip",
    "model": CHECKPOINT,
    "models": {},
    "tokenizer": {
        "_target_": "vltune.data.tokenizer.ClipTokenizer",
        "merges": "pkg://vltune/weights/bpe_simple_vocab_16e6.txt.gz",
    },
    "transform": {"_target_": "vltune.data.transforms.SquareResize"},
    "protocol": {},
}
TASK = {
    "name": "classification",
    "_target_": "vltune.tasks.image_classification.ImageClassification",
    "protocol": "full",
}
UNSAID: dict[str, Any] = {"mode": "train", "results_dir": "results", "force": False, "busy": "leave", "sweep": None}
"""Of a run, where its record is older than the setting; nothing here depends on it."""
UNTUNED = {"_target_": "vltune.tuning.Method"}


@dataclass(frozen=True)
class Classifier:
    model: Model
    transform: Transform

    @property
    def classes(self) -> list[str]:
        """Those that it tells apart: a linear layer of base to new the base classes alone."""
        task = self.model.task
        return task.classes if task.head is None else task.classes[: task.base]

    def __call__(self, files: Sequence[Path]) -> list[list[float]]:
        """The probability of each class, of each image.  UserError where one is none."""
        examples = [{"id": number, "image": self.pixels(file)} for number, file in enumerate(files)]
        return [of for _, output in self.outputs(examples) for of in output.double().softmax(1).tolist()]

    def outputs(self, examples: Iterable[dict]) -> Iterator[tuple[Batch, Tensor]]:
        """Batches of examples and what the model says of each; those that cannot be read are left out."""
        import torch

        from vltune.data.collate import Collate

        collate, examples = Collate(0, self.transform.mean, self.transform.std), iter(examples)
        model = self.model.eval()
        with model.settled():
            while some := [*islice(examples, AT_A_TIME)]:
                if (batch := collate(some))["ids"]:
                    with torch.no_grad():
                        output = model(batch)
                    yield batch, output

    def pixels(self, file: Path) -> Any:
        from vltune.images import UnreadableImageError

        if not file.is_file():
            raise UserError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}; name an image")
        try:
            tell_oddities(file, content := file.read_bytes())
            return self.transform.read(content)
        except UnreadableImageError as error:
            raise UserError(f"{file}: no image but {error}; name another file") from None


def tell_oddities(file: Path, content: bytes) -> None:
    """What `vltune check` says of such an image in a data set."""
    from vltune.images import is_seen_through, is_turned, opened

    with opened(content) as image:
        image.load()  # which turns a TIFF
        if is_turned(image):
            print(f"{file}: its metadata turn it, and it is read as it is stored: turn it itself", file=sys.stderr)
        if is_seen_through(image):
            print(
                f"{file}: is partly transparent, and the colours underneath are read: fill it yourself", file=sys.stderr
            )
        if image.mode.startswith(("I", "F")):
            print(f"{file}: is of mode {image.mode}, which is cut off at 255: store it with 8 bits", file=sys.stderr)


def zero_shot(weights: str, classes: Sequence[str], template: str | None, activation: str | None) -> Classifier:
    """Of a checkpoint of CLIP alone.  activation: of one of which nothing tells it."""
    backbone = backbone_of(weights, activation)
    return classifier(weights, backbone, TASK, UNTUNED, named(backbone, classes, template or TEMPLATE))


def backbone_of(weights: str, activation: str | None) -> dict:
    """The configuration of a checkpoint of CLIP, as it says itself; of one that comes with the package, conf/backbone's."""
    from vltune.weights.architecture import check_activation

    file = weight_files(weights, {})["backbone"]
    if (own := configured(file)) is not None:
        find(TASK["_target_"]).check_backbone(find(own["_target_"]))
        if activation not in (None, own["activation"]):
            raise UserError(f"--activation {activation}: these weights have {own['activation']}; leave it out")
        return own
    found = of_file(*stamped(file))
    if activation is not None:
        check_activation(file, activation, "--activation")
    elif found.activation is None:
        raise untold(file, "--activation")
    return taken(BACKBONE | {"activation": found.activation or activation}, found)


def of_record(file: Path, weights: str | None, classes: Sequence[str], template: str | None) -> Classifier:
    """As a run tuned it.  classes: its own where there are none.  template: its own where it is None."""
    from vltune.engine import artifacts

    record = record_of(file)
    check_tuned(record, file)
    check_parts(record, file, "task")
    config = record["config"] | ({} if weights is None else {"weights": weights})
    task = config["task"]
    if "classifier" not in task:
        raise UserError(f"{file}: is of task={task['name']}; --from takes a record of image classification")
    check_parts(record, file)
    backbone = config["backbone"]
    if classes and task["classifier"] != "text":
        raise UserError(f"{file}: its classifier={task['classifier']} has classes of its own; leave out --classes")
    check_same_weights(record, file, config)
    if not classes or template is None:
        known = of_data(config, file, fingerprint_of_data(record))
    given = named(backbone, classes, template) if classes and template else None
    if classes:
        task = task | {"protocol": "full"}  # a name is a base class or a new one in its own data alone
    facts = given or known | ({"classes": classes} if classes else {}) | ({"templates": [template]} if template else {})
    import torch

    torch.manual_seed(record["identity"]["seed"])  # what starts at random where there are no weights
    found = classifier(config["weights"], backbone, task, config["method"], facts)
    artifacts.read_tuned(file.with_suffix(".safetensors"), found.model)
    return found


def of_data(config: dict, file: Path, before: str | None) -> dict:
    """What a record's task is built from, which its data tells.

    before: the fingerprint that it had; None where that is not known.  UserError where it has another now, and rows of the
    run's own stand for its classes."""
    try:
        data = open_data(tuned := RunConfig.of(whole(config, UNSAID | config, file)))
    except UserError as error:
        told = f"its classes and template stand in its data, which cannot be read ({error})"
        if config["task"]["classifier"] != "text":  # it has classes of its own, none that could be typed
            raise UserError(f"{file}: {told}; put that back at {data_folder(config['dataset'])}") from None
        raise UserError(f"{file}: {told}; give --classes and --template") from None
    for what in find(tuned.task["_target_"]).numbered_by(tuned.task):
        check_tuned_on(tuned, data, what, file, before)
    return data.facts


def named(backbone: dict, classes: Sequence[str], template: str) -> dict:
    return {"classes": classes, "templates": [template], "tokenizer": tokenizer(backbone)}


def classifier(weights: str, backbone: dict, task: dict, method: dict, facts: dict) -> Classifier:
    model = build_pretrained(weights, backbone, task, method, facts)
    return Classifier(model, build(backbone["transform"], decode="exact"))
