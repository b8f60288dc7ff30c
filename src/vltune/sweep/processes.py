"""Copies of this process that work for it while a sweep is planned."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

from vltune.data.pool import end_with


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


def _begin(end: Connection, ours: Connection) -> None:
    ours.close()  # a copy of it would keep the pipe open
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with, args=(end,), daemon=True).start()
