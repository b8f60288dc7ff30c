"""What lies beside a record: the tuned tensors and the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from vltune import __version__
from vltune.atomic import replacing
from vltune.engine.checkpoint import writing
from vltune.errors import UserError
from vltune.metrics.metric import Prediction
from vltune.model import Model
from vltune.records.predictions import KIND, check_images, save
from vltune.tasks.task import RowColumn


def write_tuned(path: Path, model: Model) -> int:
    """Saves what was trained, and nothing else; returns the file's bytes."""
    return write_tensors(path, model.tuned_state())


def read_tuned(path: Path, model: Model) -> None:
    from vltune.weights.files import read_safetensors

    if not path.is_file():
        raise UserError(f"{path}: the tuned parameters of this record are not here; run its command again to make them")
    take(model, read_safetensors(path), path)


def take(model: Model, state: dict[str, Tensor], source: Path) -> None:
    """Gives a model what a run tuned.  source: named in the UserError where that is of another model."""
    try:
        model.load_tuned(state)
    except (KeyError, ValueError) as error:
        raise UserError(f"{source}: does not fit the model of its record: {error}") from None


def write_backbone(path: Path, model: Model) -> int:
    """Saves a pretrained backbone in half precision, its pretraining heads beside it under `task.`"""
    heads = {f"task.{name}": tensor for name, tensor in model.task.state_dict().items()}
    return write_tensors(path, {name: t.half() for name, t in (model.backbone.state_dict() | heads).items()})


def write_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> int:
    from safetensors.torch import save_file

    with replacing(path) as temporary, writing(path):
        temporary.touch()
        allowed = temporary.stat().st_mode  # as any new file here; safetensors makes its own the owner's alone
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary, metadata)
        temporary.chmod(allowed)
    return path.stat().st_size


def write_predictions(
    path: Path, predictions: dict[str, list[Prediction]], record: dict, columns: Sequence[RowColumn] = ()
) -> None:
    """One row an example: split, id, prediction, score (null where the truth is unknown), and the task's own columns.

    The file's metadata say whose they are: `vltune` (version), `run` (the record's id) and its identity.  Raises ValueError
    where an image is named that does not lie in the folder beside the record."""
    import pyarrow as pa

    own = {"text": pa.dictionary(pa.int32(), pa.string()), "number": pa.int32(), "share": pa.float32()}
    own |= {"real": pa.float32(), "image": pa.string()}
    schema = pa.schema(
        {
            "split": pa.dictionary(pa.int8(), pa.string()),
            "id": pa.int64(),
            "prediction": pa.string(),
            "score": pa.float32(),
        },
        {"vltune": __version__, "run": record["id"]} | {key: str(value) for key, value in record["identity"].items()},
    )
    for column in columns:
        schema = schema.append(pa.field(column.name, own[column.kind], metadata={KIND: column.kind}))
    rows = [{"split": split, **row} for split, of_split in predictions.items() for row in of_split]
    table = pa.Table.from_pylist(rows, schema=schema)
    check_images(table, path)
    with replacing(path) as temporary:
        save(table, temporary)
