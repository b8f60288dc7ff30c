"""Shared by all tests."""

import os
import signal
from pathlib import Path

import pytest
import torch

from vltune.engine import kernels

# A shell's background job starts with Ctrl-C ignored, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a run of a small backbone computes in a process of its own, it computes in this one: unless told otherwise.
if kernels.is_intel_with_avx2() and kernels.VARIABLES.keys().isdisjoint(os.environ):
    os.environ.update(kernels.VARIABLES)


# Of several workers none is left with these at the end, when the others have nothing to do any more.
LONG = {"slurm", "test_run.py", "test_budgets.py", "sweep", "test_signals.py", "test_terminal.py", "test_places.py"}
LONG |= {"test_adding.py", "test_adding_data.py", "test_a_new_method.py", "test_contract.py", "test_combinations.py"}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.isdisjoint(item.path.relative_to(Path(__file__).parent).parts))


def pytest_make_parametrize_id(val):
    """Archives hold the time at which they were made, and workers have to call a test the same."""
    return "bytes" if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
