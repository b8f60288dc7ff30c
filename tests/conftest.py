"""Shared by all tests."""

import signal
from pathlib import Path

import pytest
import torch

# A shell's background job starts with Ctrl-C ignored, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


# The longest first: of several workers none is left with one of these when the others have nothing to do any more.
LONG = ["slurm", "test_run.py", "test_compile.py", "test_budgets.py", "test_places.py", "test_combinations.py"]
LONG += [
    "test_committed.py",
    "test_published.py",
    "test_run_subject.py",
    "test_commands.py",
    "sweep",
    "test_signals.py",
]
LONG += ["test_terminal.py", "test_contract.py", "test_adding.py", "test_adding_data.py", "test_a_new_method.py"]


def pytest_collection_modifyitems(items):
    def rank(item):
        parts = item.path.relative_to(Path(__file__).parent).parts
        return next((number for number, name in enumerate(LONG) if name in parts), len(LONG))

    items.sort(key=rank)


def pytest_make_parametrize_id(val):
    """Archives hold the time at which they were made, and workers have to call a test the same."""
    return "bytes" if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
