"""Shared fixtures: tiny backbones with random weights, and where the authors' golden files lie."""

import os
from pathlib import Path

import pytest
import torch

GOLDEN = Path(os.environ.get("VLTUNE_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def golden_files(backbone: str, task: str) -> list:
    """Every golden checkpoint of a backbone and task; one skipped parameter that says why where there are none."""
    found = sorted(GOLDEN.glob(f"**/{backbone}-*-{task}.ckpt"))
    if not found:
        reason = f"no {backbone}-*-{task}.ckpt under {GOLDEN}: set VLTUNE_GOLDEN to the folder of golden files"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    return [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in found]
