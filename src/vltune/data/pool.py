"""A few processes that take one job after the other."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from typing import TypeVar

from vltune.errors import UserError

Job, Result = TypeVar("Job"), TypeVar("Result")


def run(function: Callable[[Job], Result], jobs: Iterable[Job], processes: int) -> Iterator[Result]:
    """The results of jobs, as they come; in this very process where `processes` is 1.

    Where it is closed or left by an exception, the processes end at once, whatever they do; so they do when this one ends,
    even killed.  They leave Ctrl-C to it.  UserError where one dies.
    """
    if processes == 1:
        yield from map(function, jobs)
        return
    context = multiprocessing.get_context("spawn")  # a copy of this process would hold its lock and its memory
    end, ours = context.Pipe(duplex=False)
    executor, jobs = ProcessPoolExecutor(processes, context, _begin, (end,)), iter(jobs)
    try:
        with _interrupts_held():
            running = {executor.submit(function, job) for job in islice(jobs, 2 * processes)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {executor.submit(function, job) for job in islice(jobs, len(done))}
            for each in done:
                yield each.result()
    except BrokenProcessPool:
        raise UserError(
            "a reader process ended unexpectedly, out of memory perhaps; give the command again with --readers 1"
        ) from None
    except BaseException:
        ours.close()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        ours.close()
        end.close()


def cores() -> int:
    """How many this process may use, in a container too."""
    from joblib import cpu_count

    return cpu_count()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes started in here never see Ctrl-C, which a terminal sends to all; this one sees it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(end: Connection) -> None:
    threading.Thread(target=end_with, args=(end,), daemon=True).start()


def end_with(end: Connection) -> None:
    """Waits until the other end is closed, by whom or whatever."""
    try:
        end.recv()
    except EOFError:
        os._exit(1)
