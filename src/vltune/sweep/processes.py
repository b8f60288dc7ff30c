"""Copies of this process that work for it while a sweep is planned."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context

from vltune.experiment.readiness import check_jobs

Check = Callable[[Sequence[Sequence[str]], Sequence[dict]], list[dict]]


@contextmanager
def copies(count: int) -> Iterator[ProcessPoolExecutor]:
    """They leave Ctrl-C to this process, and end with it, even where that is killed."""
    pool = ProcessPoolExecutor(count, get_context("fork"), _end_with, (os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def checks() -> Iterator[Check]:
    """`check_jobs`, in a copy that imports what runs are built of from now on; that takes longer than all the rest of
    planning, and this process can do without."""
    if "torch" in sys.modules:
        yield check_jobs
        return
    with copies(1) as pool:
        pool.submit(import_module, "vltune.model")
        yield lambda jobs, configs: pool.submit(check_jobs, jobs, configs).result()


def _end_with(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
