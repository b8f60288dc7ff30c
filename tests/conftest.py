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


# The longest first: of several workers none is left with one of these when the others have nothing to do any more.
LONG = ["slurm", "test_committed.py", "test_compile.py", "test_roles.py", "test_run.py", "test_configs.py"]
LONG += ["test_grid.py", "test_budgets.py", "test_places.py", "test_combinations.py", "test_published.py"]
LONG += ["test_run_subject.py", "test_commands.py", "sweep", "test_signals.py", "test_terminal.py", "test_contract.py"]
LONG += ["test_adding.py", "test_adding_data.py", "test_a_new_method.py"]


def pytest_collection_modifyitems(items):
    """First of all those whose processes are copies of this one: what has compiled has threads, which no copy has."""

    def rank(item):
        parts = item.path.relative_to(Path(__file__).parent).parts
        copies = hasattr(item.module, "processes") or hasattr(item.module, "fork")
        return not copies, next((number for number, name in enumerate(LONG) if name in parts), len(LONG))

    items.sort(key=rank)


def pytest_make_parametrize_id(val):
    """Archives hold the time at which they were made, and workers have to call a test the same."""
    return "bytes" if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
