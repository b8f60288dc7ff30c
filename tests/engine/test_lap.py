"""How long a step computes: the pieces of it, without what lies between them."""

import pytest
import torch

from vltune.engine import lap
from vltune.engine.lap import Laps


def test_elsewhere_than_on_a_gpu_the_hosts_clock_counts(monkeypatch):
    seconds = iter([1.0, 1.5, 7.0, 7.25])
    monkeypatch.setattr(lap.time, "perf_counter", lambda: next(seconds))
    laps = Laps(torch.device("cpu"))
    for _ in range(2):
        with laps.piece():
            pass
    assert laps.milliseconds() == pytest.approx(750.0)


def test_on_a_gpu_events_count_and_the_last_alone_is_waited_for(monkeypatch):
    times, waited = iter([0.0, 3.0, 50.0, 54.0]), []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = next(times)

        def synchronize(self):
            waited.append(self.at)

        def elapsed_time(self, other):
            return other.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    laps = Laps(torch.device("cuda"))
    for _ in range(2):
        with laps.piece():
            pass
    assert waited == []
    assert laps.milliseconds() == 7.0
    assert waited == [54.0]


def test_a_piece_in_which_memory_runs_out_does_not_count():
    laps = Laps(torch.device("cpu"))
    with pytest.raises(torch.OutOfMemoryError), laps.piece():
        raise torch.OutOfMemoryError
    assert laps.pieces == []
