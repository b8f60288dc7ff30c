"""Signals that ask a run to stop."""

import os
import signal

import pytest

from vltune.engine import interrupt


@pytest.fixture
def worker(monkeypatch):
    """This process as a worker of a sweep."""
    before = {signum: signal.getsignal(signum) for signum in interrupt.SIGNALS}
    monkeypatch.setattr(interrupt, "_swept", [])
    interrupt.guard_worker()
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_a_signal_while_a_run_is_prepared_stops_it_once_it_can_save(worker):
    os.kill(os.getpid(), signal.SIGTERM)
    with interrupt.StopRequest() as stop, pytest.raises(interrupt.Interrupted, match="SIGTERM"):
        stop.check()
    with pytest.raises(interrupt.Interrupted):
        interrupt.guard_worker()


def test_a_signal_within_a_run_stops_the_next_ones_too(worker):
    with interrupt.StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signum == signal.SIGTERM
    with pytest.raises(interrupt.Interrupted):
        interrupt.guard_worker()
