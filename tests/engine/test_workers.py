"""Worker processes: how many, and who may end them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset

from vltune.engine.workers import share, suiting

SCRIPT = textwrap.dedent("""
    import multiprocessing, sys, time
    import torch
    from vltune.engine.source import loader

    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 400

        def __getitem__(self, number):
            time.sleep(0.02)
            return number

    batches = iter(loader(Slow(), None, 2, batch_size=2))
    next(batches), next(batches)  # one of each worker, which then heeds what it is to heed
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    if sys.argv[1] == "fails":
        raise RuntimeError("while workers read")  # whose traceback keeps the loader until the interpreter ends
    if sys.argv[1] == "waits":
        time.sleep(60)
    sys.stdin.readline()
    print(sum(len(batch) for batch in batches), flush=True)
""")


def start(how):
    """The process, and the ids of its two workers."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, how], **pipes)
    return parent, [int(pid) for pid in parent.stdout.readline().split()]


def runs(pid):
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def ended(pids, seconds=20):
    until = time.monotonic() + seconds
    while (left := [pid for pid in pids if runs(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    return not left


def test_workers_heed_no_signal_of_a_scheduler_and_go_on_reading():
    parent, pids = start("reads")
    assert len(pids) == 2
    for pid in pids:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(pid, signum)
    out, errors = parent.communicate("\n")
    assert (parent.returncode, out.strip()) == (0, "396"), errors
    assert ended(pids)


def test_workers_end_with_a_parent_that_fails():
    parent, pids = start("fails")
    _, errors = parent.communicate(timeout=30)
    assert parent.returncode == 1
    assert errors.splitlines()[-1] == "RuntimeError: while workers read"
    assert ended(pids)


def test_workers_end_with_a_parent_that_is_killed():
    parent, pids = start("waits")
    parent.kill()
    parent.communicate()
    assert ended(pids)


@pytest.mark.parametrize(
    ("cores", "gpus", "free", "batch_bytes", "expected"),
    [
        (16, 1, 2**36, 2**27, (15, 4)),
        (16, 4, 2**36, 2**27, (3, 4)),
        (64, 1, 2**36, 2**27, (16, 4)),
        (16, 1, 2**33, 2**27, (15, 2)),  # room for 32 batches
        (16, 1, 2**30, 2**27, (4, 1)),
        (16, 1, 2**26, 2**27, (0, None)),  # a container's 64 MB: any worker would die
        (1, 1, 2**36, 2**27, (0, None)),
        (2, 8, 2**36, 2**27, (0, None)),
    ],
)
def test_share_of_a_gpu(cores, gpus, free, batch_bytes, expected):
    assert share(cores, gpus, free, batch_bytes) == expected


def test_none_where_nothing_is_decoded(monkeypatch):
    class Examples(torch.utils.data.Dataset):
        example_bytes = 0

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert suiting(Examples(), 8) == suiting([1, 2], 8) == (0, None)
    Examples.example_bytes = 1000
    assert suiting(Subset(Examples(), [0]), 8) == suiting(Examples(), 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert suiting(Examples(), 8) == (0, None)
