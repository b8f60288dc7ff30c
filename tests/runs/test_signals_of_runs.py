"""Signals that ask a run to stop."""

import signal
import subprocess

import pytest

from vltune.runs import signals


@pytest.mark.parametrize("signum", signals.SIGNALS)
def test_a_signal_raises_a_flag_and_the_first_one_is_the_exit_status(signum):
    with signals.StopRequest() as stop:
        assert not stop.asked
        signal.raise_signal(signum)
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        with pytest.raises(signals.Interrupted, match=f"stopped by {signum.name}: saved; the same") as stopped:
            stop.check()
    assert stopped.value.exit_code == 128 + signum


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_stops_at_once(first):
    with signals.StopRequest():
        signal.raise_signal(first)
        if first != signal.SIGINT:
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_run_that_another_process_took_over_is_not_saved():
    with signals.StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        stop.lose("taken over")
        with pytest.raises(signals.OwnedElsewhere, match="taken over"):
            stop.check()


def test_processes_that_a_run_started_are_asked_to_stop_too():
    with signals.StopRequest() as stop, subprocess.Popen(["sleep", "60"]) as process:
        stop.processes = [process]
        signal.raise_signal(signal.SIGUSR2)
        assert process.wait() == -signal.SIGTERM
