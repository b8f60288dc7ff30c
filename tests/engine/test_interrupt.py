"""Signals that ask a run to stop."""

import os
import signal
import subprocess

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


@pytest.mark.parametrize("signum", interrupt.SIGNALS)
def test_a_signal_raises_a_flag_and_the_first_one_is_the_exit_status(signum):
    with interrupt.StopRequest() as stop:
        assert not stop.asked
        signal.raise_signal(signum)
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        with pytest.raises(interrupt.Interrupted, match=f"stopped by {signum.name}: saved; the same") as stopped:
            stop.check()
    assert stopped.value.exit_code == 128 + signum


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_stops_at_once(first):
    with interrupt.StopRequest():
        signal.raise_signal(first)
        if first != signal.SIGINT:
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_run_that_another_process_took_over_is_not_saved():
    with interrupt.StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        stop.lose("taken over")
        with pytest.raises(interrupt.Elsewhere, match="taken over"):
            stop.check()


def test_processes_that_a_run_started_are_asked_to_stop_too():
    with interrupt.StopRequest() as stop, subprocess.Popen(["sleep", "60"]) as process:
        stop.processes = [process]
        signal.raise_signal(signal.SIGUSR2)
        assert process.wait() == -signal.SIGTERM
