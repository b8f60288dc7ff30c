"""Copies of this process that work for it while a sweep is planned."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection

from vltune.data.pool import end_with
from vltune.experiment.readiness import check_jobs

Check = Callable[[Sequence[Sequence[str]], Sequence[dict]], list[dict]]


@contextmanager
def copies(count: int) -> Iterator[ProcessPoolExecutor]:
    """They leave Ctrl-C to this process, and end at once where that fails or is killed."""
    context = get_context("fork")
    end, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, context, _begin, (end, ours))
    try:
        yield pool
    except BaseException:
        ours.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        ours.close()
        end.close()


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


def _begin(end: Connection, ours: Connection) -> None:
    ours.close()  # a copy of it would keep the pipe open
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with, args=(end,), daemon=True).start()
