"""A run's model, built and called once without numbers: settings that do not fit each other are told before any work.

On the meta device that takes tenths of a second, whatever the model's size.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vltune.assemble.data import facts
from vltune.assemble.factory import build
from vltune.assemble.model import build_model
from vltune.errors import UserError
from vltune.values import said

if TYPE_CHECKING:
    from vltune.data.transforms import Transform
    from vltune.settings.backbone import BackboneSettings
    from vltune.settings.config import RunConfig

FITTED = ("backbone.", "method.", "task.", "match.", "method@", "+match=")  # settings that have to fit each other
PICTURES = ((640, 480), (480, 640))  # (width, height) in pixels, as photographs have them


def rehearse(config: RunConfig, overrides: Sequence[str]) -> None:
    """UserError that names what a person typed, where no model comes of it or none that this machine can hold.

    Where nothing was typed that could be at fault, nothing is done."""
    if not typed(overrides):
        return
    import torch

    from vltune.costs import macs, matching

    spec, task = config.backbone, config.task
    known = facts(config.dataset) | {"vocabulary_size": spec["vocabulary_size"], "mask_id": 0, "attributes": (2,) * 4}
    with blame(overrides), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a head has no answers yet where the data tells them
        with torch.device("meta"):
            model = build_model(spec, task, config.method, known).eval()
        needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        if needed > (memory := os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")):
            raise ValueError(f"{needed / 1e9:,.0f} GB of parameters, and this machine has {memory / 1e9:,.0f} GB")
        alone = not task.get("reader") and model.backbone.offers(
            "forward"
        )  # pretraining's batches hold more than these
        shown = model.backbone if alone else model
        for (text_len, image), name in sizes(spec, config.mode).items():
            example = macs.example(text_len, image, spec["vocabulary_size"], model.task.images)
            try:
                with torch.no_grad():
                    shown(matching.on_meta(example))
            except NotImplementedError as error:
                if "meta" not in str(error).lower():
                    raise
                return  # torch computes that with numbers alone, such as sparse tensors: nothing can be told here
            except UserError as error:
                raise UserError(f"{name}: {error}") from None
            except KeyError as error:
                raise ValueError(f"the forward pass asks for {error}, of a batch of {', '.join(example)}") from error


def sizes(spec: BackboneSettings, mode: str) -> dict[tuple[int, tuple[int, int]], str]:
    """{(tokens, (height, width) in pixels): the setting that it follows from} of examples that the model is shown.

    Those that costs are counted on and, where data is read, the longest text with photographs."""
    found = {}
    if mode == "train":
        transform = build(spec["transform"])
        check_patches(transform, spec)
        longest = said("backbone.max_text_len", spec["max_text_len"])
        found = {(spec["max_text_len"], transform.size(*picture)[::-1]): longest for picture in PICTURES}
    counted = spec["protocol"]
    return found | {(counted["text_len"], tuple(counted["image"])): said("backbone.protocol", counted)}


def check_patches(transform: Transform, spec: BackboneSettings) -> None:
    """ValueError where an image of some ratio would have a part of a patch at its side."""
    multiple, patch = getattr(transform, "multiple", None), spec.get("patch_size")
    if multiple and patch and multiple % patch:
        raise ValueError(f"images have sides of a multiple of {multiple} pixels, and patches {patch}")


@contextmanager
def blame(overrides: Sequence[str]) -> Iterator[None]:
    """What fails in here although every setting is right by itself is the affair of those that were typed, if any were."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not (chosen := typed(overrides)):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{' '.join(chosen)}: no model comes of that ({reason})") from error


def typed(overrides: Sequence[str]) -> list[str]:
    return [each for each in overrides if each.lstrip("~").startswith(FITTED) or each.lstrip("+~").startswith(FITTED)]
